"""Controls of a policy: every widget edits the TOML text, which holds the only state.

No widget keeps a value of its own: before it is drawn it is set from the text, and when it is moved
it rewrites the text. So the text, the widgets and the URL never disagree.
"""

from __future__ import annotations

import base64
import zlib
from collections.abc import Callable, Mapping
from math import inf

import streamlit as st

from curator.core.errors import UsageError
from curator.policy.field import PolicyField
from curator.policy.fields import field_of
from curator.policy.model import Policy, Rule, parse_policy
from curator.policy.text_edit import add_rule, change, change_rule, drop_rule, new_rules, to_toml
from ui.shared import parts

TEXT = "policy_text"
"""Key of the text in the session state."""

_REFUSED = "policy_refused"
_MAX_TEXT_BYTES = 20_000
_SOURCES = {"any": "any text", "alt_text": "alt texts", "generated": "generated captions"}
_PICKS = {"best": "best score", "first": "first", "all": "all"}
_OTHERWISE = {"drop": "drop the sample", "keep_alt": "keep its alt text"}


def pack(text: str) -> str:
    """Compress a text for the URL."""
    return base64.urlsafe_b64encode(zlib.compress(text.encode(), 9)).decode().rstrip("=")


def unpack(packed: str) -> str | None:
    """Return the text in a URL; None if it is invalid, or longer than any policy."""
    try:
        data = base64.urlsafe_b64decode(packed + "=" * (-len(packed) % 4))
        opened = zlib.decompressobj()
        text = opened.decompress(data, _MAX_TEXT_BYTES)
        return text.decode() if opened.eof else None
    except (ValueError, zlib.error):  # someone edited the URL
        return None


def controls(policy: Policy) -> None:
    """Draw all widgets of a policy."""
    if refused := st.session_state.pop(_REFUSED, None):
        parts.error(refused)
    _choice("pick", "Of the texts that pass, take", _PICKS, policy.pick)
    _sources(policy)
    _choice("otherwise", "When no text passes", _OTHERWISE, policy.otherwise)
    if policy.pick == "all":
        _weights(policy)
    _surgery(policy)
    for place, rule in enumerate(policy.rule):
        _rule(place, rule)
    kinds = {"": "choose a kind of rule", **{kind: kind for kind in new_rules()}}
    _select("new_rule", "Add a rule", kinds, "", add_rule)


def _edit(key: str, edit: Callable[[Policy, object], Policy]) -> None:
    """Callback of every widget: set its value in the policy and rewrite the text."""
    value = st.session_state[key]
    try:
        policy = parse_policy(st.session_state[TEXT], where="as typed")
        st.session_state[TEXT] = to_toml(edit(policy, value))
    except UsageError as error:
        st.session_state[_REFUSED] = error  # the text and the widget stay unchanged


def _set(key: str, value: object) -> str:
    key = f"control_{key}"
    st.session_state[key] = value
    return key


def _choice(name: str, label: str, options: dict[str, str], value: str) -> None:
    key = _set(name, value)
    st.segmented_control(
        label,
        list(options),
        key=key,
        required=True,
        format_func=options.__getitem__,
        on_change=_edit,
        args=(key, lambda policy, chosen: change(policy, **{name: chosen})),
    )


def _sources(policy: Policy) -> None:
    key = _set("sources", list(policy.sources))
    st.multiselect(
        "Among, in this order" if policy.pick == "first" else "Among",
        [name for name in _SOURCES if name != "any"],
        key=key,
        format_func=_SOURCES.__getitem__,
        on_change=_edit,
        args=(key, lambda policy, chosen: change(policy, sources=tuple(chosen))),
    )


def _select(
    name: str,
    label: str,
    options: Mapping[str, str],
    value: str,
    edit: Callable[[Policy, str], Policy],
) -> None:
    key = _set(name, value)
    st.selectbox(
        label,
        list(options),
        key=key,
        format_func=options.__getitem__,
        on_change=_edit,
        args=(key, lambda policy, chosen: edit(policy, chosen) if chosen else policy),
    )


def _number(
    name: str,
    label: str,
    value: float,
    edit: Callable[[Policy, object], Policy],
    *,
    step: float,
    row: PolicyField | None = None,
) -> None:
    key = _set(name, float(value))
    lowest, highest = (row.lowest, row.highest) if row else (-inf, inf)
    st.number_input(
        label,
        min_value=float(lowest) if lowest > -inf else None,
        max_value=float(highest) if highest < inf else None,
        help=row.help if row else None,
        key=key,
        step=step,
        format="%.3f" if step < 1 else "%.0f",
        on_change=_edit,
        args=(key, edit),
    )


def _percentile(
    name: str, label: str, value: float, edit: Callable[[Policy, object], Policy]
) -> None:
    key = _set(name, float(value))
    st.slider(
        label, 0.0, 100.0, key=key, step=0.5, format="%g %%", on_change=_edit, args=(key, edit)
    )


def _weights(policy: Policy) -> None:
    left, right = st.columns(2)
    for place, (source, value) in enumerate(policy.weights.model_dump().items()):

        def edit(policy: Policy, found: object, source: str = source) -> Policy:
            return change(policy, weights={**policy.weights.model_dump(), source: found})

        with (left, right)[place]:
            _number(f"weight_{source}", f"Weight of {_SOURCES[source]}", value, edit, step=0.1)


def _surgery(policy: Policy) -> None:
    surgery = policy.surgery
    key = _set("surgery", surgery is not None)
    st.toggle(
        "Cut unsupported sentences",
        key=key,
        on_change=_edit,
        args=(
            key,
            lambda policy, on: change(policy, surgery={"min_percentile": 10} if on else None),
        ),
    )
    if surgery is None:
        return
    if surgery.min_percentile is not None:
        _percentile(
            "surgery_percentile",
            "Sentences with the lowest scores",
            surgery.min_percentile,
            lambda policy, value: change(policy, surgery={"min_percentile": value}),
        )
    elif surgery.min_score is not None:
        _number(
            "surgery_score",
            "Sentences with a score below",
            surgery.min_score,
            lambda policy, value: change(policy, surgery={"min_score": value}),
            step=0.01,
        )


def _rule(place: int, rule: Rule) -> None:
    with st.container(border=True, gap="small", key=f"rule_{place}"):
        with st.container(horizontal=True, vertical_alignment="center"):
            st.html(f'<div class="cc-rule">{parts.escaped(rule.name)}</div>')
            key = f"control_drop_{place}"
            st.button(
                "Remove",
                key=key,
                type="tertiary",
                on_click=_edit,
                args=(key, lambda policy, _: drop_rule(policy, place)),
            )
        _select(
            f"source_{place}",
            "About",
            _SOURCES,
            rule.source,
            lambda policy, chosen: change_rule(policy, place, source=chosen),
        )
        _limits(place, rule)


def _limits(place: int, rule: Rule) -> None:
    row = field_of(rule.field)
    if row.names:
        _names(place, rule, row)
    if rule.min_percentile is not None:
        _percentile(
            f"percentile_{place}",
            "Discard the lowest scores of each source",
            rule.min_percentile,
            lambda policy, value: change_rule(policy, place, min_percentile=value),
        )
    for bound, word in (("min", "at least"), ("max", "at most")):
        value = getattr(rule, bound)
        if value is not None:

            def edit(policy: Policy, found: object, bound: str = bound) -> Policy:
                return change_rule(policy, place, **{bound: found})

            unit = f" ({row.unit})" if row.unit else ""
            by = f" by {rule.scorer}" if rule.scorer else ""
            label = f"{row.label}{by} {word}".capitalize() + unit
            _number(f"{bound}_{place}", label, value, edit, step=row.step, row=row)


def _names(place: int, rule: Rule, row: PolicyField) -> None:
    key = _set(f"flags_{place}", list(rule.none_of))
    st.multiselect(
        f"None of these {row.label}",
        list(row.names),
        key=key,
        help="; ".join(f"{name}: {about}" for name, about in row.names.items()),
        on_change=_edit,
        args=(key, lambda policy, chosen: change_rule(policy, place, none_of=tuple(chosen))),
    )
