"""Each method, filter, test and statement that a template may use, as transformers renders it with Jinja2."""

from __future__ import annotations

import copy
import inspect
import re
from pathlib import Path

import jinja2
import pytest
from transformers.utils.chat_template_utils import render_jinja_template

from triform.export.describe.template_engine import beyond_minijinja
from triform.runtime.bundle.text_info import JINJA2, MINIJINJA
from triform.runtime.decoder.chat_template import render_chat
from triform.runtime.decoder.templates.environment import render_with_minijinja
from triform.runtime.decoder.templates.filters import FILTERS
from triform.runtime.decoder.templates.functions import Refusal
from triform.runtime.decoder.templates.rewriting import rewritten
from triform.runtime.errors import InputError

FILE = Path(__file__).parent / "templates.txt"
LISTED = [line for line in FILE.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
SEVERAL_LINES = [
    "{{ x\n .rsplit( '-' ,\n 1) }}", "{%+ if true %}\n a{%+ endif %}\n", "a\n\n", "{{ 'a' }}\n\n",
    "{% if true -%}\n  b\n{%- endif %}\nc", "{# {{ x.rsplit('-') }} #}\n{{ x.rsplit('-') }}", "{{ {'a': {'b': {}}} }}",
    "{% raw %}\n{{ x.rsplit('-') }}{% endraw %}{{ x.title() }}", "{{ '}}' ~ x.title() }}{{ \"%}\" }}", "{{ 'a\nb' }}",
    "{% raw %}{{ y }}{% endraw %}{{ x.rsplit('-') }}",
    "{%- for m in messages -%}\n{{- m.content.strip().removeprefix('h').zfill(3) -}}\n{%- endfor -%}",
]  # fmt: skip
TEMPLATES = LISTED + SEVERAL_LINES
# transformers refuses what is compared or written here; minijinja gives something.
LENIENT = {"{{ ['a', 1] | sort }}", "{{ nope | tojson }}", "{{ 'a' < 1 }}"}
# What a comparison of renderings has to find: the template does not show it.
BY_VALUE = re.compile(r"\{\{ messages\[0\]\.f \}\}|messages\[0\]\.d \| items")
# Their text is an address.
ADDRESSES = {"{{ {'items': 1}.items }}", "{{ 'a'.rsplit }}", "{{ loop }}"}
MESSAGES = [
    {
        "role": "user", "content": "hello big world", "f": 1e-07, "g": 2.0,
        "d": {"v": 2.0, "w": 1e-7, "x": [1.0, None, True]},
    },
    {"role": "assistant", "content": "42"},
]  # fmt: skip
VARIABLES = {"x": "v-w", "y": ""}


def theirs(template):
    try:
        (text,), _ = render_jinja_template(
            [copy.deepcopy(MESSAGES)], chat_template=template, add_generation_prompt=True, **VARIABLES
        )
    except Exception:
        return None
    return text


def ours(template, engine):
    try:
        return render_chat(template, MESSAGES, VARIABLES, engine=engine)
    except InputError as error:
        assert str(error).startswith("the chat template refuses these messages: ")
        return None


@pytest.mark.parametrize("template", [one for one in TEMPLATES if one not in ADDRESSES])
def test_the_sandbox_renders_as_transformers_does(template):
    assert ours(template, JINJA2) == theirs(template)


@pytest.mark.parametrize(
    "template", [one for one in TEMPLATES if one not in LENIENT | ADDRESSES and not BY_VALUE.search(one)]
)
def test_minijinja_renders_as_transformers_does_or_an_export_knows_that_it_does_not(template):
    if beyond_minijinja(template) is None:
        assert ours(template, MINIJINJA) == theirs(template)


def test_minijinja_renders_all_but_a_few():
    """So that what an export calls beyond minijinja does not grow."""
    left_out = [one for one in TEMPLATES if beyond_minijinja(one) is not None]
    assert len(left_out) <= 60, left_out


def names_in(pattern):
    return set(re.findall(pattern, FILE.read_text(encoding="utf-8")))


def test_filters_have_the_defaults_of_jinja():
    """Such as the width of a line, where both name a parameter and Jinja's is not another's setting."""
    for name, rendering in FILTERS.items():
        original = jinja2.filters.FILTERS.get(name)
        if original is None:
            continue
        own, known = (inspect.signature(one).parameters for one in (rendering, original))
        for shared in own.keys() & known.keys():
            if known[shared].default is not None:
                assert own[shared].default == known[shared].default, (name, shared)


def test_every_method_filter_and_test_is_tried():
    methods = names_in(r"\.(\w+)\(")
    changing = {"clear", "extend", "insert", "remove", "reverse", "sort", "popitem", "fromkeys", "maketrans", "isalnum"}
    for kind in (str, list, dict):
        assert {name for name in dir(kind) if not name.startswith("_")} - methods - changing == set(), kind
    environment = jinja2.Environment()
    assert set(environment.filters) - names_in(r"\| (\w+)") - {"random"} == set()
    assert {name for name in environment.tests if name.isalpha()} - names_in(r" is (?:not )?(\w+)") == set()


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("{{ a }} {{ a.strip() }} .rsplit('x')", "{{ a }} {{ a.strip() }} .rsplit('x')"),
        ("{{ a.b[0](1).rsplit('x') }}", "{{ _method(a.b[0](1),'rsplit','x') }}"),
        ("{% if (a ~ b).title() in c %}", "{% if _method((a ~ b),'title') in c %}"),
        ("{{ a.rsplit(b.title()) }}", "{{ _method(a,'rsplit',_method(b,'title')) }}"),
        ("{{ 'a' 'b'.title().zfill(3) }}", "{{ _method(_method('a' 'b','title'),'zfill',3) }}"),
        ("{% if a is not iterable %}", "{% if a is not iterable(a is none) %}"),
        ("{{ -a | first is sequence }}", "{{ -a | first is sequence(-a | first  is none) }}"),
        ("{{ a | d(boolean=true, default_value=1) }}", "{{ a | d(true, 1) }}"),
        ("{{ a | tojson(indent=2) }}", "{{ a | tojson|_json(indent=2) }}"),
        ("{{ a | format(3) }}", "{{ a | _widths | format(3) }}"),
        ("{%- generation +%}a{%+ endgeneration -%}", "{%- with +%}a{%+ endwith -%}"),
        ("{{ a\r\nb\rc }}", "{{ a\nb\nc }}"),
        # The operand of a filter: with its attributes, filters before and a sign, and nothing that binds less tightly.
        ("{{ x.y | first | string }}", "{{ x.y | first | string | _exact(x.y | first) }}"),
        ("{{ b - a | string }}", "{{ b - a | string | _exact(a) }}"),
        ("{{ (a) - b | string }}", "{{ (a) - b | string | _exact(b) }}"),
        ("{{ f(-a | string) }}", "{{ f(-a | string | _exact(-a)) }}"),
        ("{{ not -a | string }}", "{{ not -a | string | _exact(-a) }}"),
        # Only a first argument without a name gets one.
        ("{{ a | sort(true) }}", "{{ a | sort(reverse=true) }}"),
        ("{{ a | dictsort( true, 'value') }}", "{{ a | dictsort(case_sensitive=true, 'value') }}"),
        *((text, text) for text in ("{{ a | sort }}", "{{ a | sort() }}", "{{ a | unique(attribute = 'x') }}")),
        # The name of a filter is one in the arguments of map alone.
        ("{{ a | map('tojson') }}", "{{ a | map('_tojson') }}"),
        *((text, text) for text in ("{{ f('tojson') }}", "{{ 'tojson' }}", "{{ ('tojson') }}", "{{ map ~ 'tojson' }}")),
        ("{{ a is mapping and b is iterable }}", "{{ a is mapping and b is iterable(b is none) }}"),
        *(
            (text, text)
            for text in ("{{ a is sequence(1) }}", "{{ sequence }}", "{{ a.sequence }}", "{{ not sequence }}")
        ),
        # Keywords are dropped in the arguments of default itself.
        ("{{ a | default([1, 2], boolean=true) }}", "{{ a | default([1, 2], true) }}"),
        *(
            (text, text)
            for text in ("{{ f(boolean=true) }}", "{{ d(boolean=true) }}", "{{ a | default(f(boolean=true)) }}")
        ),
        # Where a value begins that a method is called on.
        ("{% for x in (1, 2).count(1) %}", "{% for x in _method((1, 2),'count',1) %}"),
        ("{{ not a.title() }}", "{{ not _method(a,'title') }}"),
        ("{{ x if (y).title() }}", "{{ x if _method((y),'title') }}"),
        ("{{ a ('b') [0] . title ( ) }}", "{{ _method(a ('b') [0],'title') }}"),
        ("{{ 'x'.title().y[0]('z').title() }}", "{{ _method(_method('x','title').y[0]('z'),'title') }}"),
        *((text, text) for text in ("{{ a.nope() }}", "{{ a.title }}", "{{ title() }}", "{{ {'a': 1}.get('a') }}")),
        # What is no expression, or has no end.
        ("{# a.title() #}x{# b.title()", "{# a.title() #}x{# b.title()"),
        ("{% raw %}a.title(){{", "{% raw %}a.title(){{"),
        *(
            (text, text)
            for text in ("{{ a", "{{ 'a }}", "{{ a }", "{{ [ }}", "{{ ']' }}", "{{ a -}}", "{{ {1: {2: 3}}}}")
        ),
    ],
)
def test_what_a_template_becomes(source, expected):
    assert rewritten(source).replace(" ", "") == expected.replace(" ", "")


def test_the_largest_operand_that_is_repeated():
    """Of 500 tokens, white space among them: brackets, 249 numbers, 248 commas and a blank."""
    numbers = ",".join("1" * 249)
    fitting = f"{{{{ [{numbers}] | string }}}}"
    assert rewritten(fitting) == f"{{{{ [{numbers}] | string|_exact([{numbers}] ) }}}}"
    with pytest.raises(Refusal, match="an expression is too large"):
        rewritten(fitting.replace("[", "[ "))


HOSTILE = [
    "{% for a in range(100000) %}{% for b in range(100000) %}{% endfor %}{% endfor %}",
    "{% macro m(n) %}{% if n %}{{ m(n - 1) }}{{ m(n - 1) }}{% endif %}{% endmacro %}{{ m(60) }}",
    "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
    "{{ 'a'.ljust(10 ** 12) }}",
    "{{ 'a'.zfill(10 ** 12) }}",
    "{{ 'a' | center(10 ** 12) }}",
    "{{ 'a' | indent(10 ** 12, true) }}",
    "{{ ''" + ".title()" * 100_000 + " }}",
    "{{ ''" + " | string" * 100_000 + " }}",
    "{{ (" * 100_000,
    "{{ ''.__class__.__mro__ }}{{ raise_exception('no') }}",
    "{{ _method('a', '__class__') }}",
]


@pytest.mark.parametrize("template", HOSTILE)
def test_minijinja_comes_to_an_end(template):
    assert ours(template, MINIJINJA) is None


@pytest.mark.parametrize(
    "template", [*HOSTILE[:3], "{{ 'a' * 10 ** 12 }}", "{{ [1] * 10 ** 12 }}", "{{ 10 ** 10 ** 10 }}", *HOSTILE[10:]]
)
def test_the_sandbox_comes_to_an_end(template):
    assert ours(template, JINJA2) is None


def test_an_expression_that_jinja_itself_cannot_read():
    assert beyond_minijinja("{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}") == "an expression that is nested too deeply"


def test_templates_up_to_the_longest():
    """2**18 characters, which the child process that renders them need not see."""
    assert render_with_minijinja("a" * 2**18, {}) == "a" * 2**18
    with pytest.raises(Refusal, match="it has more than 262144 characters"):
        render_with_minijinja("a" * (2**18 + 1), {})


@pytest.mark.parametrize("template", ["{{ ['<é'] | map('tojson') | join }}", "{{ ['<é'] | map( 'tojson' ) | join }}"])
def test_json_of_each_item_is_transformers_not_minijinjas(template):
    """Without the escapes for HTML that the engine's own filter has."""
    assert render_with_minijinja(template, {}) == '"<é"' == theirs(template)
