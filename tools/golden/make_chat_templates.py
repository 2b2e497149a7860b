"""tests/golden/chat-templates.json: chat templates, and what transformers (Jinja) makes of them.

    python make_chat_templates.py --out FILE

Each entry is [template, prompt, enable_thinking, text]. The templates are made up: some by hand, the others at random
from the parts of Jinja that src/text/jinja_run.c has. Those that Jinja refuses are left out.
"""

import argparse
import json
import random

from transformers.utils.chat_template_utils import _compile_jinja_template

BY_HAND = [
    "{%- for message in messages %}\n    {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}\n"
    "{%- endfor %}\n{%- if add_generation_prompt %}\n    {{- '<|im_start|>assistant\\n' }}\n"
    "    {%- if enable_thinking is defined and enable_thinking is false %}\n        {{- '<think>\\n\\n</think>\\n\\n' }}\n"
    "    {%- endif %}\n{%- endif %}\n",
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n'}}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}",
    "{%- if tools %}{{- tools | tojson }}{%- elif messages[0].role == 'system' %}s{%- endif %}\n"
    "{%- set ns = namespace(multi=true, last=messages|length - 1) %}\n{%- for message in messages[::-1] %}\n"
    "    {%- set index = (messages|length - 1) - loop.index0 %}\n"
    "    {%- if ns.multi and message.role == \"user\" and not(message.content.startswith('<t>') and message.content.endswith('</t>')) %}\n"
    "        {%- set ns.multi = false %}\n        {%- set ns.last = index %}\n    {%- endif %}\n{%- endfor %}\n"
    "{{ ns.multi }}{{ ns.last }}{{ messages[-1].content.split('</t>')[-1].lstrip('\\n') }}",
    "{% for m in messages %}{% if loop.first and m.role != 'system' %}<|im_start|>system\nYou paint.<|im_end|>\n{% endif %}"
    "<|im_start|>{{ m.role }}\n{{ m.content | trim }}{{ eos_token }}{{ bos_token }}\n{% endfor %}",
    "  {# c #}\n  {% if true %}\n  a\n   {%- endif %}  \n b {{- 'x' -}}   c\n\n{% if 1 %}\ny{% endif +%}\n z {%+ if 1 %}q{% endif %}\n\n",
    "{% macro a(b) %}x{{ b }}{% endmacro %}{{ messages[0].content }}",
    "{{ 'a' 'b' ~ 1 ~ none ~ true ~ nope }}{{ -1 + 2 * 3 - 4 }}{{ 7 % 3 }}{{ 'y' if enable_thinking else 'n' }}{{ 'q' if false }}",
    "{% set x %}hello {{ messages[0].content }}{% endset %}{{ x }}{{ x|length }}{% for c in [] %}a{% else %}empty{% endfor %}",
    "{{ messages[0].get('role') }}{{ messages[0].get('zz') }}{{ messages[0].get('zz', 'd') }}{{ messages[0].zz }}{{ zz|default('w') }}",
    "{{ not not 1 }}{{ not x }}{{ 'a' in 'bab' }}{{ 'x' not in ['a', 'x'] }}{{ 1 < 2 }}{{ 'a' < 'b' }}{{ 1 == true }}{{ nope == none }}",
    "x{#- c -#}  y {# d #}\n z{% generation %}g{% endgeneration %}{{ [1, 2, 3][::-1][0] }}{{ [1, 2][5:1:-1]|length }}",
]  # fmt: skip
PROMPTS = ["", "a b", " \u00a0 a\n", "<t>x</t>", "é你\u3000"]


def render(template, prompt, thinking):
    return _compile_jinja_template(template).render(
        messages=[{"role": "user", "content": prompt}], tools=None, documents=None, add_generation_prompt=True,
        enable_thinking=thinking, eos_token="<|im_end|>", pad_token="<|endoftext|>",
    )  # fmt: skip


class Maker:
    def __init__(self, seed):
        self.r = random.Random(seed)

    def space(self):
        pieces = ["", "", " ", "  ", "\n", "\n\n", "\t", " \n ", "\n  ", "a", "b ", " c", "d\n", "\u00a0", "{", "}", "%", "-"]
        return "".join(self.r.choice(pieces) for _ in range(self.r.randint(0, 4)))

    def sign(self):
        return self.r.choice(["", "", "-", "+"])

    def expression(self, depth=0):
        e = lambda: self.expression(depth + 1)
        if depth > 2 or self.r.randrange(20) < 7:
            return self.r.choice(["'x'", "1", "2", "true", "none", "nope", "enable_thinking", "messages[0].content", "ns.a",
                                  "messages[0]['role']", "messages", "''", "eos_token", "[1, 2]", "['a', 'b']"])  # fmt: skip
        form = self.r.choice(["{} + {}", "{} ~ {}", "{} == {}", "{} != {}", "{} and {}", "{} or {}", "not {}", "({})",
                              "{} if {} else {}", "{}|length", "{} is defined", "{} is not none", "{} is string", "{} in {}",
                              "{} not in {}", "{} < {}", "{} - {}", "-{}", "{} * {}", "{}[{}]", "{}[{}:{}]", "{}[::{}]",
                              "{}|trim", "{}.startswith({})", "{}.strip()", "{}.rstrip('a ')", "{}.split({})",
                              "{}|default({})", "{}|first", "{}|last", "{} >= {}"])  # fmt: skip
        return form.format(*(e() for _ in range(form.count("{}"))))

    def tag(self, text):
        return f"{{%{self.sign()} {text} {self.sign()}%}}"

    def body(self, depth=0):
        out = ""
        for _ in range(self.r.randint(1, 3)):
            kind = self.r.randrange(8) if depth < 3 else 0
            out += self.space()
            if kind <= 2:
                out += f"{{{{{self.r.choice(['', '-'])} {self.expression()} {self.r.choice(['', '-'])}}}}}"
            elif kind == 3:
                out += self.tag(f"if {self.expression()}") + self.body(depth + 1)
                out += self.tag("else") + self.body(depth + 1) if self.r.random() < 0.5 else ""
                out += self.tag("endif")
            elif kind == 4:
                out += self.tag(f"for m in {self.r.choice(['messages', '[1, 2, 3]', 'nope'])}") + self.body(depth + 1)
                out += "{{ loop.index }}" + self.tag("endfor")
            elif kind == 5:
                out += self.tag(f"set {self.r.choice(['q', 'nope', 'm'])} = {self.expression()}")
            elif kind == 6:
                out += f"{{#{self.r.choice(['', '-'])} c {self.r.choice(['', '-'])}#}}"
            else:
                out += self.tag(f"set ns.a = {self.expression()}")
        return out + self.space()


def make(out, count):
    maker, cases = Maker(20261128), []
    cases += [[t, p, thinking, render(t, p, thinking)] for t in BY_HAND for p in PROMPTS for thinking in (True, False)]
    while len(cases) < count:
        template, prompt = "{% set ns = namespace(a='A') %}" + maker.body(), maker.r.choice(PROMPTS)
        try:
            text = render(template, prompt, True)
        except Exception:  # noqa: BLE001
            continue
        if "[" not in text and "<" not in text.replace("<|im_end|>", "").replace("<t>x</t>", ""):  # no list written as text
            cases.append([template, prompt, True, text])
    with open(out, "w", encoding="utf-8") as f:
        json.dump(cases, f, ensure_ascii=False, indent=0)
        f.write("\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", required=True)
    parser.add_argument("--count", type=int, default=400)
    a = parser.parse_args()
    make(a.out, a.count)
