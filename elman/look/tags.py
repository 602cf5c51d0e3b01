"""Tagged sentences, with how sure the network is of each tag, and how well each tag is found."""

from __future__ import annotations

from elman.look.page import Section, escape
from elman.task.sentences import Rate, Rates, Sentence, Sentences

SURE = 0.95  # from here on p is not written
MOST = 60  # rows of a table


def section(view: Sentences) -> Section:
    """Each sentence with its tags beneath; wrong ones struck out, with the right one beside."""
    known = any(s.right is not None for s in view.shown)
    of = f", of {view.of:,}, evenly spread" if view.tagged < view.of else ""
    first = " The surest mistakes come first; a wrong tag is struck out, the right one follows." if known else ""
    note = (
        f"{len(view.shown):,} of {view.tagged:,} sentences that were tagged{of}. The less sure the network is of a "
        f"tag, the stronger the tint; where its p is below {SURE:g}, or the tag is wrong, p is written.{first}"
    )
    rows = "".join(f"<li>{laid_out(s)}</li>" for s in view.shown)
    return Section("Sentences, tagged", f"<p class='note'>{note}</p><ol class='tagged'>{rows}</ol>")


def laid_out(s: Sentence) -> str:
    """A sentence as HTML."""
    right = s.right or s.found
    words = [one(*each) for each in zip(s.words, s.found, s.p, right)]
    cut = f"<span class='note'>... of {s.length:,} words</span>" if s.length > len(s.words) else ""
    return " ".join([*words, cut])


def one(word: str, tag: str, p: float, right: str) -> str:
    """A word above its tag."""
    wrong = tag != right
    said = f"<s>{escape(tag)}</s> <strong>{escape(right)}</strong>" if wrong else escape(tag)
    told = f" {p:.2f}" if wrong or p < SURE else ""
    mark, tint = " wrong" if wrong else "", f"background:rgba(var(--high),{0.8 * (1 - p):.2f})"
    return f"<span class='word{mark}' style='{tint}'>{escape(word)} <small>{said}{told}</small></span>"


def rates(view: Rates) -> Section:
    """A table: how often each is there, precision, recall and F1."""
    of = "Whole spans of each kind" if view.spans else "Words of each tag"
    few = f"; the {MOST} most frequent of {len(view.each):,}" if len(view.each) > MOST else ""
    rows = "".join(map(row, view.each[:MOST]))
    names = ("kind" if view.spans else "tag", "there", "found", "precision", "recall", "F1", "")
    head = "".join(f"<th scope='col'>{name}</th>" for name in names)
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
    return Section("How well each is found", f"{table}<p class='note'>{of}, the most frequent first{few}.</p>")


def row(rate: Rate) -> str:
    f1 = 2 * rate.both / (rate.there + rate.found)
    shares = (rate.both / rate.found if rate.found else None, rate.both / rate.there if rate.there else None, f1)
    cells = [f"{rate.there:,}", f"{rate.found:,}", *("" if share is None else f"{share:.1%}" for share in shares)]
    numbers = "".join(f"<td class='number'>{cell}</td>" for cell in cells)
    bar = f"<td><span class='bar' style='width:{100 * f1:.0f}px'></span></td>"
    return f"<tr><th scope='row'>{escape(rate.name)}</th>{numbers}{bar}</tr>"
