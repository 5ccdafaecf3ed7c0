"""Renders every template of this file with Python's jinja2, set up as transformers sets it up for chat templates, and
writes templates, variables and results to constructs.json beside it. Needs jinja2 only: `python make.py`."""

import json
from datetime import datetime
from pathlib import Path

from jinja2.exceptions import TemplateError
from jinja2.ext import Extension, loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

NOW = datetime(2024, 7, 6, 5, 4, 3)


class Generation(Extension):
    """`{% generation %}…{% endgeneration %}` marks what a model said; the text is that of its body."""

    tags = {"generation"}

    def parse(self, parser):
        next(parser.stream)
        return parser.parse_statements(["name:endgeneration"], drop_needle=True)


def refuse(message):
    raise TemplateError(message)


def tojson(value, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


environment = ImmutableSandboxedEnvironment(
    trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols])
environment.filters["tojson"] = tojson
environment.globals.update(raise_exception=refuse, strftime_now=NOW.strftime)

TALK = [
    {"role": "system", "content": " Be brief. "},
    {"role": "user", "content": "Hi <b>you</b> & 'me'"},
    {"role": "assistant", "content": "  Hello!\n"},
    {"role": "user", "content": "Weather in Köln?"},
]
WEATHER = {"type": "function", "function": {"name": "weather", "description": "Tells the \"weather\".", "parameters": {
    "type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer", "default": 1}},
    "required": ["city"]}}}
CALL = {"role": "assistant", "content": None, "tool_calls": [
    {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": {"city": "Köln", "days": 2}}}]}
ANSWER = {"role": "tool", "tool_call_id": "c1", "name": "weather", "content": "12 °C"}

talk = {"messages": TALK, "bos_token": "<s>", "eos_token": "</s>", "add_generation_prompt": True}
tools = {**talk, "messages": [*TALK, CALL, ANSWER], "tools": [WEATHER]}
parts = {**talk, "messages": [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What?"}]}]}

CASES = {
    "loop variables": ("{% for m in messages %}{{ loop.index }}/{{ loop.index0 }}/{{ loop.revindex }}/{{ loop.length }}"
        "{% if loop.first %}F{% endif %}{% if loop.last %}L{% endif %}:{{ m.role }} {% endfor %}", talk),
    "neighbours in a loop": ("{% for m in messages %}{% if loop.previtem is defined %}<{{ loop.previtem.role }}{% endif %}"
        "{% if loop.nextitem is defined %}>{{ loop.nextitem.role }}{% endif %};{% endfor %}", talk),
    "loops with a condition and an else": ("{% for m in messages if m.role == 'user' %}{{ m.content }}|{% endfor %}"
        "{% for m in [] %}x{% else %}none{% endfor %}", talk),
    "loops over pairs and ranges": ("{% for k, v in {'a': 1, 'b': [2]}.items() %}{{ k }}={{ v }};{% endfor %}"
        "{% for i in range(1, 8, 3) %}{{ i }}{% endfor %}", {}),
    "break and continue": ("{% for i in range(9) %}{% if i == 1 %}{% continue %}{% endif %}{% if i > 3 %}{% break %}"
        "{% endif %}{{ i }}{% endfor %}", {}),
    "namespaces": ("{% set ns = namespace(found=false, n=0) %}{% for m in messages %}{% if m.role == 'system' %}"
        "{% set ns.found = true %}{% set ns.text = m.content %}{% endif %}{% set ns.n = ns.n + 1 %}{% endfor %}"
        "{{ 'found' if ns.found }} {{ ns.n }} {{ ns.text | trim }}", talk),
    "scopes": ("{% set x = 1 %}{% for i in [1, 2] %}{% set x = x + i %}{{ x }};{% endfor %}{{ x }}"
        "{% if true %}{% set x = 9 %}{% endif %}{{ x }}", {}),
    "macros": ("{% macro turn(role, text='-', end=true) %}<{{ role }}>{{ text }}{% if end %}</{{ role }}>{% endif %}"
        "{% endmacro %}{{ turn('a') }}{{ turn('b', 'c', end=false) }}{{ turn(text='d', role='e') | upper }}", {}),
    "recursive macros": ("{% macro show(v, depth=0) %}{% if v is mapping %}{% for k, w in v | dictsort %}"
        "{{ ' ' * depth }}{{ k }}:\n{{ show(w, depth + 1) }}{% endfor %}{% else %}{{ ' ' * depth }}{{ v }}\n{% endif %}"
        "{% endmacro %}{{ show({'b': 1, 'a': {'c': 'x'}}) }}", {}),
    "call blocks": ("{% macro box(name) %}[{{ name }}: {{ caller() }}]{% endmacro %}{% call box('n') %}in{% endcall %}", {}),
    "set blocks": ("{% set text %}a{{ 1 + 1 }}b{% endset %}{{ text | length }}{{ text }}", {}),
    "filter blocks": ("{% filter upper %}abc {{ bos_token }}{% endfilter %}", talk),
    "tuples and several names": ("{% set a, b = 1, 'x' %}{{ a }}{{ b }}{% for x, y in [[1, 2], [3, 4]] %}{{ x * y }},{% endfor %}", {}),
    "white space is controlled": ("  {%- if true %}\n  a\n  {%- endif %}\n\n{{- 'b' -}}\n   c  {#- note -#}  d\n"
        "    {% if true %}\ne\n    {% endif %}\nf\n", {}),
    "comments": ("a{# b #}c{#\n d \n#}e\n{# f #}\ng", {}),
    "raw text": ("{% raw %}{{ not a variable }}{% endraw %}", {}),
    "raw lines": ("a\n  {% raw %}\n{{ x }} 'q' \\ \n  {% endraw %}\nb  {%- raw %} {% if %} {% endraw -%}  c", {}),
    "white space is kept at the end": ("  {%+ if true %}a{% endif +%}\nb", {}),
    "scopes of loops in loops": ("{% for i in [1, 2] %}{% for j in [3, 4] %}{% set k = i * j %}{{ k }},{% endfor %}"
        "{{ k is defined }};{% endfor %}", {}),
    "values within values": ("{{ {'a': {'b': [1, {}]}} ~ 1.0 ~ none }}{{ ['it\\'s', \"d\\\"q'\", '\\n'] }}", {}),
    "conditions": ("{% if not messages %}a{% elif messages[0].role == 'system' and (tools is not defined or not tools) %}b"
        "{% else %}c{% endif %}{{ 'x' if tools else 'y' }}{{ 'only' if false }}", talk),
    "slices": ("{{ messages[1:] | length }}{{ messages[-1].role }}{{ messages[:-1] | length }}{{ 'abcdef'[1:4] }}"
        "{{ 'abcdef'[::-1] }}{{ 'abcdef'[::2] }}{{ messages[::-1][0].content }}", talk),
    "json": ("{{ tools[0] | tojson }}\n{{ messages[1].content | tojson }}\n{{ {'b': [1, 2.5, none, true], 'a': 'ö'} | tojson(indent=2) }}"
        "\n{{ [] | tojson }}{{ {} | tojson(indent=4) }}", tools),
    "calls of tools": ("{% for m in messages %}{% if m.tool_calls %}{% for c in m.tool_calls %}{% if c.function is defined %}"
        "{% set c = c.function %}{% endif %}<call>{{ {'name': c.name, 'arguments': c.arguments} | tojson }}</call>{% endfor %}"
        "{% elif m.role == 'tool' %}<answer>{{ m.content }}</answer>{% endif %}{% endfor %}", tools),
    "tools by hand": ("{% for tool in tools %}{% for name, p in tool.function.parameters.properties.items() %}{{ name }}: {{ p.type }}"
        "{% if name not in tool.function.parameters.required %} = {{ p.default }}{% endif %}{{ ', ' if not loop.last }}"
        "{% endfor %}{% endfor %}", tools),
    "parts": ("{% for m in messages %}{% if m.content is string %}{{ m.content }}{% else %}{% for p in m.content %}"
        "{% if p.type == 'image' %}<image>{% elif 'text' in p %}{{ p.text }}{% endif %}{% endfor %}{% endif %}{% endfor %}", parts),
    "generation blocks": ("{% for m in messages %}{% if m.role == 'assistant' %}{% generation %}{{ m.content }}{{ eos_token }}"
        "{% endgeneration %}{% else %}{{ m.content }}{% endif %}\n{% endfor %}", talk),
    "the date": ("{{ strftime_now('%d %b %Y') }}|{{ strftime_now('%Y-%m-%d') }}|{{ strftime_now('%B %d, %Y, %A') }}|"
        "{{ strftime_now('%H:%M:%S %I %p %a %j %y %%') }}|{% if strftime_now is defined %}y{% endif %}", {}),
    "refusals": ("{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
        "{{ raise_exception('roles must alternate, not ' + m.role) }}{% endif %}{% endfor %}", talk),
    "truth values": ("{{ true }} {{ 1 == 2 }}", {}),
    "white space is kept": ("a\n    {%+ if true %}b{% endif %}", {}),
    "nothing is escaped": ("{{ messages[1].content }}", talk),
    "text in lines": ("{{ 'a\\nb\\tc' }}{{ \"d'e\" }}{{ 'f\"g' }}{{ 'ü\\\\' }}", {}),
}

# Each is a template of its own, with the variables of `tools`.
EXPRESSIONS = [
    '1 < 2 <= 2',
    '3 > 2 > 2',
    '(3 > 2) == true',
    '1 < (2 if 3 > 2 else 0) < 3',
    '1 == 1 in [1]',
    "0 < messages | length < 9 and not 2 < 1 < 3",
    "'a' in 'cat'",
    "'role' in messages[0]",
    '3 not in [1, 2]',
    '1 == 1.0',
    "'a' != 'b'",
    '[1, 2] == [1, 2]',
    "{'a': [1]} == {'a': [1]}",
    '[1, [2]] != [1, [2]]',
    '7 // 2',
    '7 % 4',
    '2 ** 5',
    '7 / 2',
    '6 / 2',
    '-3 + 1',
    '2 * 3 - 1',
    "'ab' * 2",
    "1 ~ 'x' ~ 2.5",
    "' a b '.strip()",
    "'a,b'.split(',') | join('+')",
    "'Abc'.lower()",
    "'abc'.upper()",
    "'x.y'.startswith('x')",
    "'x.y'.endswith('x')",
    "'aXbX'.replace('X', '-')",
    "'  l'.lstrip()",
    "'r  '.rstrip()",
    "'some words here'.title()",
    "'a</think>b'.split('</think>')[-1]",
    "'xxaxx'.strip('x')",
    "'abc'.find('c')",
    "'hello'.capitalize()",
    "messages[0].get('name', 'nobody')",
    "messages[0].get('role')",
    'messages[0].keys() | list',
    'messages[0].values() | list | length',
    "[3, 1, 2] | sort | join(',')",
    '[1, 2] | reverse | list',
    '[1, 2, 3] | first',
    '[1, 2, 3] | last',
    '[1, 1, 2] | unique | list',
    "messages | map(attribute='role') | join(' ')",
    '[1, 2] | sum',
    '[4, 9] | max',
    '[4, 9] | min',
    "['b', 'a'] | sort(reverse=true)",
    "messages | selectattr('role', 'equalto', 'user') | list | length",
    "messages | rejectattr('role', 'equalto', 'user') | map(attribute='content') | map('trim') | join('|')",
    "[1, none, 2] | select('defined') | list | length",
    "['', 'a'] | select | list",
    "' a ' | trim",
    "'ab' | upper",
    "'AB' | lower",
    "'a b' | title",
    "'aBc' | capitalize",
    "'a-b' | replace('-', '+')",
    "'abc' | length",
    "5 | string + '!'",
    "'7' | int + 1",
    "'2.5' | float",
    '-4 | abs',
    "'abc' | list",
    "'a\nb' | indent(2)",
    "'a\nb' | indent(2, first=true)",
    '2.567 | round(1)',
    "missing | default('d')",
    "'' | default('e', true)",
    "none | default('f')",
    'missing is defined',
    'missing is undefined',
    'missing',
    '1 is number',
    "'a' is string",
    '{} is mapping',
    '[] is iterable',
    '[] is sequence',
    'none is none',
    'true is boolean',
    '4 is even',
    '3 is odd',
    'true is true',
    'false is false',
    "'a' is not none",
    '2 is integer',
    '2.5 is float',
    "'A' is upper",
    "'x' is in ['x']",
    '1 is eq(1)',
    "'x' is not in ['x', 'y']",
    "messages[0].role is in(('system', 'developer'))",
    "messages[0].role is eq 'system' and messages[1].role is ne 'user'",
    "'b' is in messages[1].content",
    "[1, 2, 3] | length is gt(2)",
    '6 is divisibleby 3',
    '7 is divisibleby(2) or 7 is odd',
    "'z' if 'a' is in 'cat' else 'y'",
    "messages | selectattr('role', 'in', ['user', 'tool']) | list | length",
    "messages | rejectattr('role', 'ne', 'user') | list | length",
    "messages | selectattr('tool_calls') | list | length",
    "messages | rejectattr('tool_calls', 'defined') | list | length",
    "[1, 2, 3] | select('gt', 1) | join(',')",
    'none',
    "[1, 'a', none]",
    "{'k': 'v', 'n': 1.5}",
    '1.0',
    "'it\\'s'",
    "['it\\'s']",
]


# Truth values are asked, as templates ask them; how they print is one case above.
def asked(expression):
    is_truth = environment.from_string("{{ " + expression + " }}").render(**tools) in ("True", "False")
    return "{{ 'y' if " + expression + " else 'n' }}" if is_truth else "{{ " + expression + " }}"


def rendered(template, variables):
    try:
        return {"expected": environment.from_string(template).render(**variables)}
    except TemplateError as error:
        return {"refused": error.message}


SETS = {"talk": talk, "tools": tools, "parts": parts, "none": {}}
cases = [{"name": name, "template": template, "variables": next(key for key, own in SETS.items() if own == variables),
          **rendered(template, variables)}
         for name, (template, variables) in [*CASES.items(), *(
             (expression, (asked(expression), tools)) for expression in EXPRESSIONS)]]
place = Path(__file__).with_name("constructs.json")
place.write_text(json.dumps({"now": NOW.isoformat(), "variables": SETS, "cases": cases}, ensure_ascii=False, indent=1) + "\n")
print(len(cases), "templates")
