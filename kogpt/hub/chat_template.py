"""The chat template of an exported folder: messages -> the text that its AutoTokenizer reads, in Jinja.

It writes what kogpt.tokenizer.chat renders, and `{% generation %}` marks what is learnt, for `transformers`
(`return_assistant_tokens_mask`) and TRL (`assistant_only_loss`). A literal special token in a message is neutralized:
the library reads special tokens anywhere in a text, so the template parts its bracket from its name, by the mark for a
boundary between morphemes, which keeps the text (spacing "original"), or by a space.

The tokens are those of training with `--analyzer none`. A template cannot call an analyzer, so with one the tokens of
the messages differ.
"""

from kogpt.tokenizer.hf import CUT, ROLE_PIECES, SPECIAL_PIECES

_NAMES = [piece[1:-1] for piece in (*SPECIAL_PIECES, *ROLE_PIECES)]

_TEMPLATE = """\
{{- '[CLS]' -}}
{%- for message in messages -%}
{%- if message['role'] not in ['system', 'user', 'assistant'] -%}
{{- raise_exception('role ' ~ message['role'] ~ ' is unknown; use system, user, or assistant') -}}
{%- endif -%}
{%- set own = namespace(text=message['content'] | trim) -%}
{%- for name in NAMES -%}
{%- set own.text = own.text | replace('[' ~ name ~ ']', '[GAP' ~ name ~ ']') -%}
{%- endfor -%}
{{- '[' ~ (message['role'] | upper) ~ ']' -}}
{%- if message['role'] == 'assistant' -%}
{%- generation -%}{{- own.text ~ '[END]' -}}{%- endgeneration -%}
{%- else -%}
{{- own.text ~ '[END]' -}}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '[ASSISTANT]' -}}{%- endif -%}
"""


def chat_template(spacing: str) -> str:
    """The template for AutoTokenizer with a vocabulary of this spacing."""
    return _filled(gap=CUT if spacing == "original" else " ")


def llama_chat_template() -> str:
    """The template for llama.cpp, which begins texts with [CLS] itself and has words of its own for spaces.

    A neutralized "[END]" reads "[ END]" there.
    """
    template = _filled(gap=" ").replace("{{- '[CLS]' -}}\n", "")
    return template.replace("{%- generation -%}", "").replace("{%- endgeneration -%}", "")


def _filled(*, gap: str) -> str:
    return _TEMPLATE.replace("NAMES", repr(_NAMES)).replace("GAP", gap)
