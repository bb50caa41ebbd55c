"""How the rows of a data set can be laid out."""

from enum import StrEnum


class RowFormat(StrEnum):
    """A layout of rows."""

    MESSAGES = "messages"  # {"messages": [{"role", "content"}, …]}
    PROMPT_COMPLETION = "prompt_completion"  # {"prompt", "completion"}
    INSTRUCTION = "instruction"  # {"instruction", "input"?, "output"}
    TEXT = "text"  # {"text"}
    PREFERENCE = "preference"  # {"prompt"?, "chosen", "rejected"}, as texts or as messages
    UNPAIRED_PREFERENCE = "unpaired_preference"  # {"prompt", "completion", "label": true or false}
    LABELLED_TEXT = "labelled_text"  # {"text", "label"}
    PAIRS = "pairs"  # {"anchor", "positive", "negative"?}
    TOKEN_LABELS = "token_labels"  # {"tokens": […], "tags" or "ner_tags": […]}
    PROMPT = "prompt"  # {"prompt"}, {"messages"} or {"instruction", "input"?}; other columns are for the rewards
