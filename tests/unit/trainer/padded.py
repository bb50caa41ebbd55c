"""A batch as everybody else has it."""

import torch

from peft_studio.trainer.data import Row


def padded(rows: list[Row]) -> dict[str, torch.Tensor]:
    """Rows side by side, with mask and labels as transformers takes them."""
    longest = max(len(row.ids) for row in rows)
    ids, mask = torch.zeros(len(rows), longest, dtype=torch.long), torch.zeros(len(rows), longest, dtype=torch.long)
    labels = torch.full((len(rows), longest), -100)
    for i, row in enumerate(rows):
        length = len(row.ids)
        ids[i, :length], mask[i, :length] = torch.from_numpy(row.ids), 1
        labels[i, :length] = torch.where(torch.from_numpy(row.learn), ids[i, :length], -100)
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}
