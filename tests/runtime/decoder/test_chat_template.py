"""Chat templates as minijinja renders them, against transformers and Jinja2."""

from __future__ import annotations

import copy
from importlib import import_module

import pytest
from transformers.utils.chat_template_utils import render_jinja_template

from triform.runtime.decoder.chat_template import render_chat
from triform.runtime.errors import InputError

SPECIAL = {"bos_token": "<s>", "eos_token": "</s>"}
WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Weather of a <b>'city'</b> & its \u00e9tat",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "days": {"type": ["integer", "null"], "default": 1.0}},
            "required": ["city"],
        },
    },
}
USER = {"role": "user", "content": " Hi \u00e9 <b>\n'two' "}
CALL = {"name": "weather", "arguments": {"city": "K\u00f6ln", "days": 2, "more": [1.5, True, None, {"a": "b"}]}}
CONVERSATIONS = {
    "plain": [USER],
    "system": [{"role": "system", "content": "Be brief."}, USER, {"role": "assistant", "content": "Yes."}, USER],
    "twice": [USER, USER],
    "thought": [USER, {"role": "assistant", "content": "<think>\nhm\n</think>\n\nYes.", "thinking": "hm"}, USER],
    "parts": [{"role": "user", "content": [{"type": "text", "text": "What?"}, {"type": "image"}]}],
    "call": [
        USER,
        {"role": "assistant", "content": "", "tool_calls": [{"id": "a1", "type": "function", "function": CALL}]},
        {"role": "tool", "content": '{"sky": "gray"}', "name": "weather", "tool_call_id": "a1"},
    ],
}

# One small template for each thing that the large ones do.
TEMPLATES = {
    "default system message": """{% if messages[0].role != 'system' %}<|sys|>You help.
{% endif %}{% for m in messages %}<|{{ m.role }}|>{{ m['content'] }}{{ eos_token }}
{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}""",
    "strict alternation": """{{ bos_token }}{% for m in messages if m.role != 'system' %}
{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}
{{ raise_exception('roles must alternate,\n not ' ~ m.role) }}{% endif %}[{{ m.role | upper }}]{% endfor %}""",
    "tools": """{%- if tools %}
    {{- 'Tools: ' + (tools | length | string) }}
    {%- for tool in tools %}
{{ tool | tojson }}
{{ tool.function | tojson(indent=4) }}{{ tool | tojson(separators=(',', ':'), sort_keys=true, ensure_ascii=true) }}
    {%- endfor %}
{% elif tools is none %}none{% endif %}
{%- for name, schema in (tools or [{}])[0].get('function', {}).get('parameters', {}).items() %}
{{ name }}: {{ schema }}{% endfor %}""",
    "calls": """{% for m in messages %}{% if m.tool_calls is defined and m.tool_calls %}
{% for call in m.tool_calls %}{% set call = call.function if call.function is defined else call %}
<call>{"name": "{{ call.name }}", "arguments": {{ call.arguments | tojson }}}</call>
{% for k, v in call.arguments | items %}{{ k }}={{ v if v is string else v | tojson }};{% endfor %}
{% for k, v in call.arguments | dictsort %}{{ k }}{{ loop.revindex }}{% endfor %}
{% endfor %}{% elif m.role == 'tool' %}<result>{{ m.content }}</result>{% endif %}
{{ m.tool_calls | length }}{% endfor %}""",
    "namespace": """{% set ns = namespace(last=-1, seen=false, names=[]) %}{% for m in messages %}
{% if m.role == 'user' %}{% set ns.last = loop.index0 %}{% set ns.seen = true %}{% endif %}
{% set ns.names = ns.names + [m.role] %}{% endfor %}
{{ ns.last }}{{ ns.seen }}{{ ns.names }}{{ ns.names | join(', ') }}""",
    "thoughts": """{% for m in messages %}{% set content = m.content %}
{% if m.reasoning_content is string %}<r>{{ m.reasoning_content }}|{{ m.thinking }}</r>{% endif %}
{% if content is string and '</think>' in content %}
{% set content = content.split('</think>')[-1].lstrip('\\n') %}
{% endif %}{{ content }}{% endfor %}""",
    "parts": """{% for m in messages %}{% if m.content is string %}{{ m.content | trim }}{% else %}
{% for part in m.content %}{% if part.type == 'text' %}{{ part.text }}{% elif 'image' in part.type %}<image>{% endif %}
{% endfor %}{% endif %}{{ m.content is sequence }}{{ m.content is iterable }}{{ m is mapping }}{% endfor %}""",
    "generation blocks": """{% for m in messages %}{% if m.role == 'assistant' %}
    {%- generation -%}
    {{ m.content }}{% if loop.last %}last{% endif %}
    {%- endgeneration -%}
{% else %}{% generation %}
 {{ loop.index }}{% set kept = 1 %}
{% endgeneration %}{{ kept }}{% endif %}{% endfor %}""",
    "loop controls": """{% for m in messages %}{% if loop.first %}{% continue %}{% endif %}
{% for c in m.content %}{{ loop.index }}{{ loop.cycle('a', 'b') }}{% if loop.index == 3 %}{% break %}{% endif %}
{% endfor %}{{ loop.previtem.role }}{{ loop.last }}{% endfor %}""",
    "macros": """{%- macro show(m, deep=false, mark='*') -%}
  {{ mark }}{{ m.role }}{% if deep %}({{ show(m, mark='+') }}){% endif %}
{%- endmacro %}
{%- macro wrap() %}<{{ caller() }}>{% endmacro %}
{% for m in messages[::-1] %}{{ show(m, deep=loop.first) }}{% call wrap() %}{{ m.role }}{% endcall %}{% endfor %}
{% set text %}a{{ messages | length }}{% endset %}{{ text }}{% filter upper %}b{% endfilter %}""",
    "dates": """{% if strftime_now is defined %}{{ strftime_now('%Y') }}{{ strftime_now('%d %b') | length }}{% endif %}
{% if not date_string is defined %}{% set date_string = '26 Jul 2024' %}{% endif %}{{ date_string }}""",
    "white space": "a\n  {% if true %}\n  b\n  {%- endif %}\nc {#- d -#} e\n    {%+ if true %}f{% endif +%}\n\n"
    "{{ 'g' -}} \n h {{- 'i' }}\n{%- for m in messages -%}\n {{ m.role }} \n{%- endfor -%}\n\n",
    "line breaks of Windows": "{% for m in messages %}\r\n{{ m.role }}\r\n{% endfor %}\r\n",
    "blocks of the template": "{{ self.nothing }}{{ self is defined }}{% for m in messages %}{{ m.role }}{% endfor %}",
    "selections": """{{ messages | map(attribute='role') | unique | join('|') }}
{{ messages | selectattr('role', 'equalto', 'user') | map(attribute='content') | map('trim') | list }}
{{ messages | rejectattr('role', 'in', ['user', 'tool']) | list | length }}{{ (messages | last).role }}
{{ messages | selectattr('tool_calls', 'defined') | list | count }}
{{ messages[1:] | map(attribute='role') | first }}""",
}
# As a template writes them behind `{% set m = messages[0] %}`.
EXPRESSIONS = (
    """
m.content.strip()|m.content.rstrip('t')|m.content.split()|m.content.split(' ', 1)|m.content[1:-1]
m.content[::-1]|m.content.find('<')|m.content.startswith((' ', 'x'))|m.content.replace('<b>', '')|m.content.upper()
true|none|1.0|7 // 2|-7 % 3|2 ** 3|1 == 1.0|'a' ~ 1 ~ true ~ none|1 < 2 < 3|[1, 'a', 2.5, none, true]
{'k': 'v', 'n': none}|[1.0, "q'uote", 'd"q']|nothing|m.nothing|m.nothing is defined|m.nothing is none
m.get('content')|m.get('nothing', 'd')|m.keys() is sequence|'role' in m|'x' not in m|dict(a=1, b='x')
range(1, 10, 3) is iterable
'yes' if m.nothing|'3' is string|3 is number|true is boolean|3 is odd|'a' is in(['a'])|none or 'z'|[] or 'e'
messages[9] is defined|messages[9]|bos_token + eos_token|unk_token|tools is none|documents is none|add_generation_prompt
'x'.nothing|'a,b'.split(',')[-1]|'-'.join(['a', 'b'])|'{} {x}'.format(1, x=2)|'a\\nb\\t\\'c\\''|'\\u00e9\\x41'
""".strip()
    .replace("\n", "|")
    .split("|")
)
FILTERS = (
    """
'3'|int ; '3.7'|int ; 'x'|int ; 'x'|int(7) ; '0x1f'|int(0, 16) ; none|int ; '2.5'|float ; 3.14159|round(2) ; -3|abs
[3, 1, 2]|sort ; [3, 1, 2]|sort(reverse=true) ; ['b', 'A']|sort|first ; [1, 2, 3]|sum ; 'a\\nb'|indent(2) ; 'ab'|list
nothing|default('d') ; ''|default('d', true) ; none|default('d') ; nothing|length ; 'xax'|trim('x') ; [1, 2]|join('-')
'<a>'|e ; '<a>'|safe ; "\u00e9</s>'&"|tojson ; {'b': 1, 'a': [none, true]}|tojson ; 1.0|string ; [1, 'a']|string
'ab cd'|title ; [1, 2, 3]|batch(2)|list ; [1, 2, 3]|reverse|list ; '%s'|format('a')
[{'k': 2}, {'k': 1}]|sort(attribute='k')
""".strip()
    .replace("\n", " ; ")
    .split(" ; ")
)


def theirs(template, messages, tools=None, prompt=True):
    """What transformers gives, or the error that it raises."""
    try:
        (text,), _ = render_jinja_template(
            [messages], tools=tools, chat_template=template, add_generation_prompt=prompt, **SPECIAL
        )
    except Exception as error:
        return error
    return text


def check(template, messages, tools=None, prompt=True):
    expected, before = theirs(template, messages, tools, prompt), copy.deepcopy(messages)
    if isinstance(expected, Exception):
        with pytest.raises(InputError, match=r"^the chat template refuses these messages: ") as caught:
            render_chat(template, messages, SPECIAL, add_generation_prompt=prompt, tools=tools)
        assert "\n" not in str(caught.value)
    else:
        assert render_chat(template, messages, SPECIAL, add_generation_prompt=prompt, tools=tools) == expected
    assert messages == before


@pytest.mark.parametrize("messages", CONVERSATIONS.values(), ids=CONVERSATIONS)
@pytest.mark.parametrize("template", TEMPLATES.values(), ids=TEMPLATES)
def test_templates_equal_transformers(template, messages):
    check(template, messages)
    check(template, messages, tools=[WEATHER], prompt=False)


def test_every_template_can_be_rendered_for_some_conversation():
    for template in TEMPLATES.values():
        assert any(isinstance(theirs(template, messages), str) for messages in CONVERSATIONS.values())


@pytest.mark.parametrize("expression", [*EXPRESSIONS, *FILTERS])
def test_expressions_equal_transformers(expression):
    template = "{% set m = messages[0] %}[{{ " + expression + " }}]"
    assert isinstance(theirs(template, [USER]), str)
    check(template, [USER])


@pytest.mark.parametrize(
    "template",
    [
        "{{ raise_exception('no\nway') }}",
        "{{ 1",
        "{% unknown %}",
        "{% include 'x' %}",
        "{{ messages[0].content.__class__.mro() }}",
        "{{ nothing.more }}",
        "{{ 'a' + none }}",
        "{{ 'a' | nofilter }}",
        "{% for m in nothing.more %}{% endfor %}",
    ],
)
def test_what_transformers_refuses_is_one_line(template):
    assert isinstance(theirs(template, [USER]), Exception)
    check(template, [USER])


def test_templates_do_not_change_what_they_are_given():
    messages, tools = [dict(USER, content=[{"type": "text"}])], [copy.deepcopy(WEATHER)]
    before = copy.deepcopy((messages, tools))
    template = (
        "{{ messages.append(1) }}{{ messages[0].pop('role') }}{{ messages[0].content.append(2) }}{{ tools.pop() }}"
    )
    render_chat(template, messages, SPECIAL, tools=tools)
    assert (messages, tools) == before


@pytest.mark.parametrize(
    ("module", "holder"),
    [
        ("transformers.models.llama4.processing_llama4", "chat_template"),
        ("transformers.models.qwen2_audio.processing_qwen2_audio", "Qwen2AudioProcessor"),
        ("transformers.models.smolvlm.processing_smolvlm", "DEFAULT_CHAT_TEMPLATE"),
    ],
)
@pytest.mark.parametrize("messages", CONVERSATIONS.values(), ids=CONVERSATIONS)
def test_templates_that_transformers_brings_along(module, holder, messages):
    found = getattr(import_module(module), holder)
    template = found if isinstance(found, str) else found.default_chat_template.fget(found)
    check(template, messages)
    check(template, messages, tools=[WEATHER], prompt=False)
