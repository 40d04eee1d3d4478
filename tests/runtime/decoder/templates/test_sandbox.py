"""The limits of Jinja2's sandbox: steps and sizes at their ends, and names that a namespace has not."""

from __future__ import annotations

import pytest

from triform.runtime.decoder.templates import sandbox
from triform.runtime.decoder.templates.functions import Refusal
from triform.runtime.decoder.templates.sandbox import render_with_jinja2

LIMIT = 10_000_000


def refusal(source, **variables):
    with pytest.raises(Refusal) as caught:
        render_with_jinja2(source, variables)
    return str(caught.value)


@pytest.mark.parametrize("source", ["{{ ('ab' * n) | length }}", "{{ (n * 'ab') | length }}"])
def test_texts_up_to_the_largest_product(source):
    assert render_with_jinja2(source, {"n": LIMIT // 2}) == str(LIMIT)
    assert refusal(source, n=LIMIT // 2 + 1) == "a product is too large"
    # Python makes an empty text of them; their size is that of the number without its sign.
    assert refusal(source, n=-(LIMIT // 2) - 1) == "a product is too large"


def test_lists_and_bytes_count_their_items():
    assert render_with_jinja2("{{ ([1, 2, 3] * n) | length }}", {"n": 4}) == "12"
    assert refusal("{{ [1, 2, 3] * n }}", n=LIMIT // 3 + 1) == "a product is too large"


def test_powers_up_to_as_many_bits():
    # 2 has two bits.
    assert len(render_with_jinja2("{{ (2 ** 1000) }}", {})) == len(str(2**1000))
    assert refusal("{{ 2 ** n }}", n=LIMIT // 2 + 1) == "a product is too large"
    assert refusal("{{ 1 ** n }}", n=LIMIT + 1) == "a product is too large"
    assert render_with_jinja2("{{ 1 ** n }}", {"n": LIMIT}) == "1"
    assert refusal("{{ (-2) ** n }}", n=LIMIT) == "a product is too large"


def test_products_of_numbers_are_numbers():
    assert render_with_jinja2("{{ n * n }} {{ 0.5 * n }} {{ n * 0.5 }}", {"n": 10**9}) == f"{10**18} {5e8} {5e8}"
    assert render_with_jinja2("{{ 2.0 ** 3 }} {{ 3 ** 2.0 }}", {}) == "8.0 9.0"


def test_steps_up_to_the_most(monkeypatch):
    """A round of a loop is one, and so is the call of `_counted` and that of range."""
    monkeypatch.setattr(sandbox, "_STEPS", 10)
    source = "{% for i in range(n) %}{{ i }}{% endfor %}"
    assert render_with_jinja2(source, {"n": 8}) == "01234567"
    # Each rendering begins to count again.
    assert render_with_jinja2(source, {"n": 8}) == "01234567"
    assert refusal(source, n=9) == "it takes too many steps"
    macro = "{% macro m() %}a{% endmacro %}" + "{{ m() }}" * 10
    assert render_with_jinja2(macro, {}) == "a" * 10
    assert refusal(macro + "{{ m() }}") == "it takes too many steps"
    nested = "{% for i in [1, 2] %}{% for j in [1, 2, 3] %}{{ j }}{% endfor %}{% endfor %}"
    assert refusal(nested) == "it takes too many steps"


def test_two_million_steps_are_the_most():
    environment = sandbox._Environment()
    environment.steps = 1_999_999
    environment._count()
    with pytest.raises(Refusal, match=r"^it takes too many steps$"):
        environment._count()


def test_blocks_leave_no_lines_and_blanks():
    assert render_with_jinja2("  {% if true %}\na\n  {% endif %}\nb", {}) == "a\nb"


def test_loops_end_early_and_the_text_of_training_is_a_scope():
    assert (
        render_with_jinja2("{% for i in [1, 2, 3] %}{% if i == 2 %}{% break %}{% endif %}{{ i }}{% endfor %}", {})
        == "1"
    )
    source = "{% set a = 1 %}{% generation %}{% set a = 2 %}{{ a }}{% endgeneration %}{{ a }}"
    assert render_with_jinja2(source, {}) == "21"


def test_names_of_a_namespace():
    assert render_with_jinja2("{% set n = namespace({'a': 1}, b=2) %}{% set n.c = 3 %}{{ n.a + n.b + n.c }}", {}) == "6"
    for source in (
        "{{ namespace(_a=1) }}",
        "{{ namespace({'_a': 1}) }}",
        "{% set n = namespace() %}{% set n._a = 1 %}",
    ):
        assert refusal(source) == "a namespace has no attribute _a"


def test_an_object_is_not_changed():
    with pytest.raises(Exception, match="is unsafe"):
        render_with_jinja2("{{ [1].append(2) }}", {})
    assert render_with_jinja2("{{ dict(a=1, b=2) }} {{ dict([['a', 1]]) }}", {}) == "{'a': 1, 'b': 2} {'a': 1}"
    assert refusal("{{ raise_exception('no') }}") == "no"
