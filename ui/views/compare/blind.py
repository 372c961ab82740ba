"""Blind rating: raters choose which of two texts fits the image better, without their origin.

Every answer is on disk before the next question is shown. The keys of the buttons contain the
question's identity, so a click on a question that another window has answered does nothing. Results
stay hidden until the rater has finished, so that they influence nobody.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import get_args

import streamlit as st

from curator.compare import blind
from curator.compare.blind import Question, Queue
from curator.compare.plots import win_rate_plot
from curator.ratings import log as rating_log
from curator.ratings import stats as rating_stats
from curator.ratings.log import Answer, Rating, ShownPair
from curator.store.store import Store
from curator.store.versions import Version
from ui.shared import context, parts, plots
from ui.views.compare import parts as compare_parts

_SIZES = ("50", "100", "200", "500")
_KEPT_QUEUES = 8
_PICTURE_PX = 640
_AGAIN, _ANSWERED = "blind_again", "blind_answered"
_BUTTONS: dict[Answer, tuple[str, str]] = {
    "left": ("A is better", "a"),
    "right": ("B is better", "b"),
    "equal": ("Equal", "e"),
    "both_bad": ("Both bad", "x"),
}
assert _BUTTONS.keys() == set(get_args(Answer))


def show(old: Version, new: Version) -> None:
    """Draw the tab."""
    who = context.reviewer()
    size, seed = _choice()
    store = context.workspace().store
    with st.spinner(f"Sampling images whose texts differ in {old.name} and {new.name}"):
        queue: Queue = _queue(str(store.root), old.id, new.id, seed, size, store, (old, new))
    if not queue.questions:
        parts.empty("Nothing to rate", "No sample's first text differs between the two versions.")
        return
    found = rating_log.read(store, {question.matchup.item for question in queue.questions})
    done = {rating.item for rating in found if rating.who == who}
    if not who:
        parts.empty("Enter your name", "Type it in the sidebar: ratings are signed with it.")
    elif (question := _next(queue, done)) is not None:
        _ask(store, question, question.shown(who, seed), who, len(done), len(queue.questions))
    else:
        parts.empty("All questions answered", "Thank you. Choose more questions above to go on.")
    _back(done)
    _results(queue, found, (old, new), finished=len(done) == len(queue.questions))


def _choice() -> tuple[int, int]:
    size, seed, _ = st.columns([1, 1, 2])
    with size:
        chosen = context.pick("n", "Questions", _SIZES, default="100")
    with seed:
        drawn = st.number_input(
            "Seed",
            min_value=0,
            max_value=1_000_000,
            value=0,
            key="seed",
            bind="query-params",
            help="Raters with the same seed get the same questions, so that their ratings can be "
            "compared. Which text is A is randomised per rater.",
        )
    return int(chosen), int(drawn)


@st.cache_data(max_entries=_KEPT_QUEUES, show_spinner=False)
def _queue(  # all but what starts with _ is the key
    root: str,
    old_id: str,
    new_id: str,
    seed: int,
    size: int,
    _store: Store,
    _versions: tuple[Version, Version],
) -> Queue:
    return blind.queue(_store, *_versions, seed=seed, size=size)


def _next(queue: Queue, done: set[str]) -> Question | None:
    """Return the question to answer again, or the first one without an answer."""
    again = st.session_state.get(_AGAIN)
    for question in queue.questions:
        if question.matchup.item == again:
            return question
    return next((one for one in queue.questions if one.matchup.item not in done), None)


def _ask(
    store: Store, question: Question, shown: ShownPair, who: str, num_done: int, num_all: int
) -> None:
    st.progress(num_done / num_all, text=f"{num_done:,} of {num_all:,} answered")
    picture, texts = st.columns([1, 1.25], gap="large")
    with picture, st.container(key="rate_picture"):
        st.image(context.thumbnail(question.shard, question.row, _PICTURE_PX), width="stretch")
    item = question.matchup.item
    with texts:
        compare_parts.choice("A", shown.left)
        compare_parts.choice("B", shown.right)
        compare_parts.note("Which text fits the image better? Each click is saved at once.")
        with st.container(horizontal=True):
            clicked = [
                answer
                for answer, (label, shortcut) in _BUTTONS.items()
                if st.button(label, key=f"rate_{item}_{answer}", shortcut=shortcut)
            ]
    for answer in clicked:
        rating_log.add(store, shown, answer, who)
        st.session_state.setdefault(_ANSWERED, []).append(item)
        st.session_state.pop(_AGAIN, None)
        st.rerun()


def _back(done: set[str]) -> None:
    """Draw a button that reopens the last answer given in this window."""
    answered = st.session_state.get(_ANSWERED, [])
    if not answered or answered[-1] not in done or _AGAIN in st.session_state:
        return
    if st.button("Change my last answer", key="rate_back", shortcut="u", type="tertiary"):
        st.session_state[_AGAIN] = answered.pop()
        st.rerun()


# -- results -------------------------------------------------------------------------------------


def _results(
    queue: Queue, found: Sequence[Rating], versions: tuple[Version, Version], *, finished: bool
) -> None:
    if not found:
        return
    if not finished and not st.toggle(
        "Show results",
        key="results",
        bind="query-params",
        help="Results can influence your ratings, and stopping when they look good makes the "
        "interval too narrow. Fix the number of questions first.",
    ):
        return
    cast = rating_log.votes((question.matchup for question in queue.questions), found)
    won = rating_stats.win_rate(cast)
    names = (versions[0].name, versions[1].name)
    parts.section("Ratings")
    compare_parts.lead(rating_stats.sentence(won, *names))
    chart, table = st.columns([1.6, 1], gap="large")
    with chart:
        drawn = win_rate_plot(won, names)
        plots.svg(drawn, "win rate with its 95 % interval", width_px=720)
        compare_parts.note(
            f"{len(queue.questions):,} questions sampled from {queue.num_samples:,} samples whose "
            "text differs. Ties count as half a win; several ratings of an image count once, by "
            "majority. Wilson's interval; the sign test leaves ties out."
        )
    with table:
        rows = [
            (f"{names[1]} better", f"{won.wins:,}"),
            (f"{names[0]} better", f"{won.losses:,}"),
            ("equal or split", f"{won.ties - won.num_both_bad:,}"),
            ("both bad", f"{won.num_both_bad:,}"),
            ("ratings", f"{won.num_ratings:,}"),
        ]
        compare_parts.table(("pictures", ""), rows)
    _agreement(cast)


def _agreement(cast: Sequence[rating_log.Vote]) -> None:
    parts.section("Agreement", "kappa: 1 is full agreement, 0 is chance level")
    found = rating_stats.agreement(cast)
    if not found:
        parts.empty("One rater so far", "Send the address of this page to a second rater.")
        return
    rows = [
        (
            ", ".join(group.raters),
            f"{group.num_items:,}",
            compare_parts.share(group.same),
            compare_parts.number(group.kappa, 2),
            f"{compare_parts.number(group.low, 2)} to {compare_parts.number(group.high, 2)}"
            if group.low is not None
            else "",
        )
        for group in found
    ]
    compare_parts.table(("raters", "images", "all agree", "kappa", "95% interval"), rows)
