"""Chat templates that were made to bring the process down: refused in one line, or rendered."""

from __future__ import annotations

import subprocess
import sys

import pytest

NESTED = "{% set ns = namespace(s=[]) %}{% for i in range(50000) %}{% set ns.s = [ns.s] %}{% endfor %}{{ ns.s "
DOUBLED = "{{% set ns = namespace(s={}) %}}{{% for i in range(60) %}}{{% set ns.s = {} %}}{{% endfor %}}"
BOMBS = {
    "a long sum": "{{ 1" + 20_000 * "+1" + " }}",
    "a longer sum": "{{ 1" + 120_000 * "+1" + " }}",
    "many nots": "{{ " + 20_000 * "not " + "1 }}",
    "many filters": "{{ 1" + 30_000 * "|string" + " }}",
    "many indices": "{{ x" + 20_000 * "[0]" + " }}",
    "many attributes": "{{ x" + 40_000 * ".a" + " }}",
    "many comparisons": "{{ 1" + 20_000 * "<2" + " }}",
    "many tests": "{{ 1" + 9_000 * " is defined" + " }}",
    "many branches": "{% if a %}" + 15_000 * "{% elif a %}" + "{% endif %}",
    "brackets": "{{ " + 20_000 * "(" + "1" + 20_000 * ")" + " }}",
    "lists": "{{ " + 20_000 * "[" + 20_000 * "]" + " }}",
    "a deep value, printed": NESTED + "}}",
    "a deep value, as JSON": NESTED + "|tojson }}",
    "a deep value, compared": NESTED + "== ns.s }}",
    "too large": 300_000 * "a",
    "endless": "{% for i in range(99999) %}{% for j in range(99999) %}{{ j }}{% endfor %}{% endfor %}",
    "a wide number": "{{ '%999999999d'|format(1) }}",
    "a wider number": "{{ '%99999999999999999999d'|format(1) }}",
    "a width as an argument": "{{ '%*d'|format(999999999, 1) }}",
    "a wide indent": "{{ [1]|tojson(indent=1000000000) }}",
    "a wide center": "{{ 'a'|center(1000000000) }}",
    "a doubled list": DOUBLED.format("[1]", "ns.s + ns.s") + "{{ ns.s|length }}",
    "a doubled text": DOUBLED.format("'a'", "ns.s ~ ns.s") + "{{ ns.s|length }}",
    "a doubled sum": DOUBLED.format("'a'", "ns.s + ns.s") + "{{ ns.s }}",
    "a multiplied text": DOUBLED.format("'a'", "ns.s * 9") + "{{ ns.s }}",
    "a multiplied list": "{{ ([1] * 999999999 * 9)|length }}",
    "a joined text": DOUBLED.format("'ab'", "[ns.s, ns.s, ns.s]|join(ns.s)") + "{{ ns.s }}",
    "a replaced text": DOUBLED.format("'aa'", "ns.s|replace('a', ns.s)") + "{{ ns.s }}",
    "a formatted text": DOUBLED.format("'ab'", "'%s%s%s'|format(ns.s, ns.s, ns.s)") + "{{ ns.s }}",
    "a captured text": "{% set x = 'a' %}" + 60 * "{% set x %}{{ x }}{{ x }}{% endset %}" + "{{ x }}",
    "a repeated text": "{% for i in range(99999) %}" + 100_000 * "a" + "{% endfor %}",
    "a recursive macro": "{% macro m() %}" + 1000 * "a" + "{{ m() }}{{ m() }}{% endmacro %}{{ m() }}",
}
RENDER = """
import resource, sys
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
from triform.runtime.decoder.chat_template import render_chat
from triform.runtime.errors import InputError
try:
    print(len(render_chat(sys.stdin.read(), [{"role": "user", "content": "a"}], {})))
except InputError as error:
    assert len(str(error)) < 1000
    print("refused")
"""


@pytest.mark.parametrize("template", BOMBS.values(), ids=list(BOMBS))
def test_bombs(template):
    done = subprocess.run([sys.executable, "-c", RENDER], input=template, text=True, capture_output=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.strip().isdigit() or done.stdout == "refused\n"
