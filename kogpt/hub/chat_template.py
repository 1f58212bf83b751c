"""The chat template of an exported folder: messages -> the text that its AutoTokenizer reads, in Jinja.

It writes what kogpt.tokenizer.chat renders, and `{% generation %}` marks what is learnt, for `transformers`
(`return_assistant_tokens_mask`) and TRL (`assistant_only_loss`). A literal special token in a message is neutralized:
the library reads special tokens anywhere in a text, so the template parts its bracket from its name, in the way that
keeps the text. Spaces and line breaks that the library would drop become their tokens, as in `Tokenizer.encode`.

With `--analyzer none` and the spacing "original", the tokens are those of training, up to characters that are not in
the vocabulary ([UNK] here, bytes in training), white space other than spaces and line breaks (dropped here), and
normalization. A template cannot call an analyzer, so with one the tokens of the messages differ.
"""

from kogpt.tokenizer.hf import ROLE_PIECES, SPECIAL_PIECES

_SPACE, _BREAK = "\ufdd0", "\ufdd1"  # no characters (Unicode, noncharacters): texts have none
_NAMES = [piece[1:-1] for piece in (*SPECIAL_PIECES, *ROLE_PIECES)]

_TEMPLATE = """\
{{- '[CLS]' -}}
{%- for message in messages -%}
{%- if message['role'] not in ['system', 'user', 'assistant'] -%}
{{- raise_exception('role ' ~ message['role'] ~ ' is unknown; use system, user, or assistant') -}}
{%- endif -%}
{%- set own = namespace(text=message['content'] | trim) -%}
BEFORE
{%- for name in NAMES -%}
{%- set own.text = own.text | replace('[' ~ name ~ ']', '[GAP' ~ name ~ ']') -%}
{%- endfor -%}
AFTER
{{- '[' ~ (message['role'] | upper) ~ ']' -}}
{%- if message['role'] == 'assistant' -%}
{%- generation -%}{{- own.text ~ '[END]' -}}{%- endgeneration -%}
{%- else -%}
{{- own.text ~ '[END]' -}}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '[ASSISTANT]' -}}{%- endif -%}
"""

# A word that continues an eojeol is written ` ##x`, so `##` in a text has to be something else.
_ORIGINAL = f"""\
{{%- set own.text = own.text | replace(' ', '{_SPACE}') | replace('\\n', '{_BREAK}') | replace('##', '# ###') -%}}
"""
# One space between words is implied. Others, next to a further separator, are tokens.
_SEPARATORS = f"""\
{{%- set own.text = own.text | replace('{_SPACE}', ' {_SPACE} ') | replace('{_BREAK}', ' [LF] ') -%}}
{{%- set own.text = own.text | replace('{_SPACE}  ', '[SP]  ') | replace('  {_SPACE}', '  [SP]') -%}}
{{%- set own.text = own.text | replace(' {_SPACE} ', ' ') -%}}
"""


def chat_template(spacing: str) -> str:
    """The template for AutoTokenizer with a vocabulary of this spacing."""
    if spacing != "original":
        return _filled(_NAMES, gap=" ")
    return _filled([*_NAMES, "LF", "SP"], gap=" ##", before=_ORIGINAL, after=_SEPARATORS)


def llama_chat_template() -> str:
    """The template for llama.cpp, which begins texts with [CLS] itself and has words of its own for spaces.

    A neutralized "[END]" reads "[ END]" there.
    """
    template = _filled(_NAMES, gap=" ").replace("{{- '[CLS]' -}}\n", "")
    return template.replace("{%- generation -%}", "").replace("{%- endgeneration -%}", "")


def _filled(names: list[str], *, gap: str, before: str = "", after: str = "") -> str:
    parts = {"NAMES": repr(names), "GAP": gap, "BEFORE\n": before, "AFTER\n": after}
    template = _TEMPLATE
    for name, part in parts.items():
        template = template.replace(name, part)
    return template
