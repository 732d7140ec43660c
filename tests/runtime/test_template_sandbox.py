"""Templates from strangers: nothing outside can be reached, nothing takes long, nothing grows without end."""

from __future__ import annotations

import pytest

from llamacli.errors import Unsupported
from llamacli.runtime import sandbox
from llamacli.runtime.messages import Message
from llamacli.runtime.template import ChatTemplate

ESCAPES = (
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
    "{{ joiner.__init__.__globals__ }}",
    "{{ namespace.__init__.__globals__ }}",
    "{{ lipsum.__globals__['os'].system('id') }}",
    "{{ self.__init__.__globals__ }}",
    "{{ messages.__class__.__base__ }}",
    "{{ messages[0].__getattribute__('x') }}",
    "{{ ''|attr('__class__') }}",
    "{{ ('{0.__class__}').format(messages) }}",
    "{{ '{0.__class__.__init__.__globals__}'.format_map({'0': messages}) }}",
    "{{ (messages|map(attribute='__class__')|list)[0].mro() }}",
    "{{ raise_exception.__globals__ }}",
    "{{ strftime_now.__closure__ }}",
    "{{ messages.append('x') }}",
    "{{ messages[0].update({'role': 'x'}) }}",
    "{{ messages.clear() }}",
    "{% include '/etc/passwd' %}",
    "{% import 'os' as os %}{{ os }}",
    "{% extends '/etc/passwd' %}",
    "{{ range.__self__ }}",
    "{{ (1).__class__ }}",
    "{{ dict.mro() }}",
    "{{ ''.translate({}) }}",
)

ENDLESS = (
    "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "{% set r = range(99999)|list %}{% for a in r %}{% for b in r %}{% set x = a %}{% endfor %}{% endfor %}",
    "{% macro f(n) %}{{ f(n-1) }}{{ f(n-1) }}{% endmacro %}{{ f(60) }}",
    "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "{% set r = range(99999)|list %}{{ r|select('in', r|reverse|list)|list|length }}",
    "{% set ns = namespace(n=2) %}{% for i in range(99) %}{% set ns.n = ns.n * ns.n %}{% endfor %}{{ ns.n }}",
    "{{ 9 ** 99999999 }}",
)

HUGE = (
    "{{ 'a' * 10**10 }}",
    "{{ [0] * 10**10 }}",
    "{{ 'a'.ljust(10**10) }}",
    "{{ 'a'.zfill(10**10) }}",
    "{{ 'a'|center(10**10) }}",
    "{{ 'a'|indent(10**10) }}",
    "{{ '%1000000000d' % 1 }}",
    "{{ '%*d' % (10**9, 1) }}",
    "{{ '%1000000000d'|format(1) }}",
    "{{ '{:>1000000000}'.format('x') }}",
    "{{ '{:{w}}'.format('x', w=10**9) }}",
    "{{ messages|tojson(indent=10**9) }}",
    "{% set ns = namespace(s='ab') %}{% for i in range(99) %}{% set ns.s = ns.s + ns.s %}{% endfor %}",
    "{% set ns = namespace(s='ab') %}{% for i in range(99) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}",
    "{% set ns = namespace(s='aa') %}{% for i in range(99) %}{% set ns.s = ns.s.replace('a', ns.s) %}{% endfor %}",
    "{% set ns = namespace(s='aa') %}{% for i in range(99) %}{% set ns.s = ns.s|replace('a', ns.s) %}{% endfor %}",
    "{% set s = 'a' * 9999999 %}{{ (range(9999)|map('string')|list)|join(s) }}",
    "{% set s = 'a' * 9999999 %}{{ s.join(range(9999)|map('string')|list) }}",
    "{% set s = 'a' * 999999 %}{% for i in range(99999) %}{{ s }}{% endfor %}",
    "{% macro f(s) %}{% for i in range(99) %}{{ s }}{% endfor %}{% endmacro %}{{ f(f(f(f(f('abc'))))) }}",
    "{% set ns = namespace(l=[1]) %}{% for i in range(60) %}{% set ns.l = [ns.l, ns.l] %}{% endfor %}{{ ns.l }}",
    "{% set ns = namespace(l=[1]) %}{% for i in range(60) %}{% set ns.l = ns.l + ns.l %}{% endfor %}",
    "{% set ns = namespace(l={}) %}{% for i in range(60) %}{% set ns.l = {'a': ns.l, 'b': ns.l} %}{% endfor %}",
)


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "MAX_SECONDS", 0.3)


@pytest.mark.parametrize("source", ESCAPES)
def test_nothing_outside_can_be_reached_or_changed(source: str) -> None:
    messages = [Message("user", "hello")]
    try:
        prompt = ChatTemplate(source).render(messages)
    except Unsupported:
        return
    shown = "".join(span.text for span in prompt)
    assert not any(word in shown for word in ("class", "function", "module", "root", "uid", "object", "<"))


@pytest.mark.parametrize("source", ENDLESS)
def test_templates_that_run_for_ever_are_ended(source: str) -> None:
    with pytest.raises(Unsupported):
        ChatTemplate(source).render([Message("user", "hello")])


@pytest.mark.parametrize("source", HUGE)
def test_templates_that_grow_are_ended_before_they_have_grown(source: str) -> None:
    with pytest.raises(Unsupported):
        ChatTemplate(source).render([Message("user", "hello")])


@pytest.mark.parametrize("source", ["{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}", "{% if 1 %}" * 3000, "{{" * 9999])
def test_sources_that_nest_without_end_are_refused(source: str) -> None:
    with pytest.raises(Unsupported):
        ChatTemplate(source).render([Message("user", "hello")])


def test_sources_that_are_too_long_are_refused() -> None:
    with pytest.raises(Unsupported, match="characters"):
        ChatTemplate("x" * (sandbox.MAX_SOURCE + 1)).render([Message("user", "hello")])


def test_long_documents_are_no_attack() -> None:
    document = "word " * 2_000_000
    prompt = ChatTemplate("<|user|>{{ messages[0].content | trim }}").render([Message("user", document)])
    assert sum(len(span.text) for span in prompt) == len("<|user|>") + len(document) - 1


def test_everyday_jinja_works() -> None:
    source = (
        "{% set ns = namespace(n=0) %}{% for m in messages if m.role == 'user' %}{% set ns.n = ns.n + 1 %}"
        "{{ loop.index }}/{{ loop.length }}{% if loop.last %}{% break %}{% endif %}{% endfor %}"
        "{% generation %}{{ [1, 2]|join('-') ~ '%02d' % 7 ~ 'x' * 3 }}{% endgeneration %}"
        "{{ {'ü': '<é>'}|tojson }}{{ strftime_now('%Y')|length }}"
    )
    prompt = ChatTemplate(source).render([Message("user", "a"), Message("assistant", "b"), Message("user", "c")])
    assert "".join(span.text for span in prompt) == '1/22/21-207xxx{"ü": "<é>"}4'
