"""Chat templates as models come with them, by the families' published forms, written for these tests."""

CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\\n' + m['content'] + '<|im_end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
CHATML_WITH_DEFAULT = (
    "{% if messages[0]['role'] != 'system' %}{{ '<|im_start|>system\\nYou help.<|im_end|>\\n' }}{% endif %}" + CHATML
)
LLAMA_3 = (
    "{% for m in messages %}{% set text = '<|start_header_id|>' + m['role'] + '<|end_header_id|>\\n\\n'"
    " + m['content'] | trim + '<|eot_id|>' %}{% if loop.first %}{% set text = bos_token + text %}{% endif %}"
    "{{ text }}{% endfor %}{% if add_generation_prompt %}"
    "{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}"
)
ZEPHYR = (
    "{% for m in messages %}{{ '<|' + m['role'] + '|>\\n' + m['content'] + eos_token + '\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% endif %}"
)
GEMMA = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}"
    "{% for m in messages %}{{ '<start_of_turn>' + ('model' if m['role'] == 'assistant' else m['role']) + '\\n'"
    " + m['content'] | trim + '<end_of_turn>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\\n' }}{% endif %}"
)
MISTRAL = (
    "{% if messages[0]['role'] == 'system' %}{% set system = messages[0]['content'] %}{% set said = messages[1:] %}"
    "{% else %}{% set said = messages %}{% endif %}{{ bos_token }}{% for m in said %}{% if m['role'] == 'user' %}"
    "{% if loop.first and system is defined %}{{ '[INST] ' + system + '\\n\\n' + m['content'] + '[/INST]' }}"
    "{% else %}{{ '[INST] ' + m['content'] + '[/INST]' }}{% endif %}"
    "{% else %}{{ ' ' + m['content'] + eos_token }}{% endif %}{% endfor %}"
)
FAMILIES = {
    "chatml": CHATML,
    "chatml with a default": CHATML_WITH_DEFAULT,
    "llama 3": LLAMA_3,
    "zephyr": ZEPHYR,
    "gemma": GEMMA,
    "mistral": MISTRAL,
}
# It says how long the answer before was: no fixed text.
COUNTING = "{% for m in messages %}{{ m['role'] ~ m['content'] | length ~ ':' ~ m['content'] }}{% endfor %}"
# What was said before the last question loses its thoughts.
FORGETTING = (
    "{% for m in messages %}{{ '<' + m['role'] + '>' }}"
    "{{ m['content'] if loop.last or m['role'] == 'user' else m['content'][:4] }}{{ '\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<assistant>' }}{% endif %}"
)
