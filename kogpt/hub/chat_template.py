"""The chat template of an exported folder: messages -> the text that its AutoTokenizer reads, in Jinja.

It writes what kogpt.tokenizer.chat renders, and `{% generation %}` marks what is learnt, for `transformers`
(`return_assistant_tokens_mask`) and TRL (`assistant_only_loss`). A literal special token in a message is neutralized:
the library reads special tokens anywhere in a text, so the template parts its bracket from its name, by the mark for a
boundary between morphemes, which keeps the text (spacing "original"), or by a space. Control characters are removed
before white space is trimmed, as in training; the library would lose the mask of a message that begins with one. With
spacing "morphemes" it drops format characters as well, such as U+200B, so these are removed there.

The tokens are those of training with `--analyzer none`, except for a literal special token whose bracket a token of
the vocabulary joins with its name ("[E"): the boundary cuts that token. A template cannot call an analyzer, so with one
the tokens of the messages differ.
"""

import json
import sys
import unicodedata

from kogpt.tokenizer.hf import CUT
from kogpt.tokenizer.normalize import normalize
from kogpt.tokenizer.pieces import ROLE_PIECES, SPECIAL_PIECES

_NAMES = [piece[1:-1] for piece in (*SPECIAL_PIECES, *ROLE_PIECES)]
_CONTROLS = [chr(code) for code in range(0xA0) if not normalize(chr(code))[0]]

_CLEAN = """\
{%- for control in CONTROLS -%}
{%- set own.text = own.text | replace(control, '') -%}
{%- endfor -%}
"""
_TEMPLATE = """\
{{- '[CLS]' -}}
{%- for message in messages -%}
{%- if message['role'] not in ['system', 'user', 'assistant'] -%}
{{- raise_exception('role ' ~ message['role'] ~ ' is unknown; use system, user, or assistant') -}}
{%- endif -%}
{%- set own = namespace(text=message['content']) -%}
CLEAN{%- set own.text = own.text | trim -%}
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
    if spacing == "original":
        return _filled(gap=CUT, clean=_CLEAN.replace("CONTROLS", json.dumps(_CONTROLS)))
    formats = [chr(code) for code in range(sys.maxunicode + 1) if unicodedata.category(chr(code)) == "Cf"]
    dropped = json.dumps([*_CONTROLS, *formats], ensure_ascii=False)  # Jinja takes an escaped pair for two characters
    return _filled(gap=" ", clean=_CLEAN.replace("CONTROLS", dropped))


def llama_chat_template() -> str:
    """The template for llama.cpp, which begins texts with [CLS] itself and has words of its own for spaces.

    A neutralized "[END]" reads "[ END]" there, and control characters stay.
    """
    template = _filled(gap=" ", clean="").replace("{{- '[CLS]' -}}\n", "")
    return template.replace("{%- generation -%}", "").replace("{%- endgeneration -%}", "")


def _filled(*, gap: str, clean: str) -> str:
    return _TEMPLATE.replace("CLEAN", clean).replace("NAMES", repr(_NAMES)).replace("GAP", gap)
