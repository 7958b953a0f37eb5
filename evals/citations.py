"""Precision and recall of `verified`: sentences people wrote from evidence, and the same with one thing changed.

    python -m evals.citations [--json] [--data DIR]

Supported sentences: answers people wrote to ClapNQ questions, sentence by sentence, against the passage they were
written from; the sentences annotators selected there as evidence; and SciFact abstracts' sentences that annotators
marked as the rationale of a claim, against their own abstract. Unsupported ones are made from each of these by one
change: another number, a name from elsewhere, a name from the same passage, a negation put in or taken out.

Precision of a kind of change is the share of `verified` that is right when supported sentences and their changed
twins come in equal numbers: verified supported / (verified supported + verified changed).

`marked` is the share of the sentences that would be given a marker if they had none, and `rightly` the share of these markers
that name the evidence, which stands second of two passages.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from citewell.citations import bears_out, verify
from citewell.documents import Chunk, ScoredChunk
from citewell.sentences import sentence_spans
from citewell.terms import Term, read
from evals.command import add_data
from evals.packs import read_jsonl


class Item(NamedTuple):
    """A sentence, the text it should rest on, and another text of the same collection."""

    group: str
    sentence: str
    evidence: str
    distractor: str


def clapnq(folder: Path) -> Iterator[Item]:
    """Sentences of human answers and selected sentences of ClapNQ's public half, each with its passage."""
    passages = {row["_id"]: row["text"] for row in read_jsonl(folder / "corpus.jsonl")}
    ids = sorted(passages)
    for row in read_jsonl(folder / "public" / "queries.jsonl"):
        if not row["answerable"]:
            continue
        text = passages[row["passage_id"]]
        other = passages[ids[(ids.index(row["passage_id"]) + 7) % len(ids)]]
        for output in row["outputs"]:
            for span in sentence_spans(output["answer"]):
                yield Item("clapnq: written", output["answer"][span.start : span.end], text, other)
            for sentence in output["selected_sentences"]:
                yield Item("clapnq: selected", sentence, text, other)


def scifact(folder: Path, most: int = 400) -> Iterator[Item]:
    """Rationale sentences of SciFact's abstracts, and the supported claims themselves (paraphrases by experts)."""
    abstracts = {row["_id"]: row["text"] for row in read_jsonl(folder / "corpus.jsonl")}
    ids = sorted(abstracts)
    rows = [*read_jsonl(folder / "public" / "queries.jsonl"), *read_jsonl(folder / "train" / "queries.jsonl")]
    count = 0
    for row in rows:
        for document, evidence in (row.get("evidence") or {}).items():
            text = abstracts.get(document)
            if text is None or count >= most:
                continue
            count += 1
            spans = sentence_spans(text)
            other = abstracts[ids[(ids.index(document) + 7) % len(ids)]]
            if evidence["label"] == "SUPPORT":
                yield Item("scifact: claims", row["text"], text, other)
            for index in {i for group in evidence["sentences"] for i in group}:
                if index < len(spans):
                    yield Item("scifact: rationale", text[spans[index].start : spans[index].end], text, other)


def changed(item: Item, rng: random.Random) -> Iterator[tuple[str, str]]:
    """(kind of change, sentence) for every change the sentence allows."""
    statement = read(item.sentence)
    numbers = [
        term for term in statement.terms if term.kind == "number" and re.search(r"\d", _surface(item.sentence, term))
    ]
    if numbers:
        term = rng.choice(numbers)
        yield "number, near", _replaced(item.sentence, term, _near_number(_surface(item.sentence, term), rng))
        others = _surfaces(item.evidence, "number", statement.terms)
        if others:
            yield "number, from the same passage", _replaced(item.sentence, term, rng.choice(others))
    names = [term for term in statement.terms if term.kind == "name"]
    if names:
        term = rng.choice(names)
        foreign = _surfaces(item.distractor, "name", read(item.evidence).terms)
        if foreign:
            yield "name, from elsewhere", _replaced(item.sentence, term, rng.choice(foreign))
        local = _surfaces(item.evidence, "name", statement.terms)
        if local:
            yield "name, from the same passage", _replaced(item.sentence, term, rng.choice(local))
    negated = _negation_removed(item.sentence)
    if negated:
        yield "negation taken out", negated
    else:
        denied = _negation_added(item.sentence)
        if denied:
            yield "negation put in", denied


def _surface(text: str, term: Term) -> str:
    return text[term.start : term.end]


def _surfaces(text: str, kind: str, known: Iterable[Term]) -> list[str]:
    keys = {term.key for term in known}
    found = {_surface(text, term) for term in read(text).terms if term.kind == kind and term.key not in keys}
    return sorted(one for one in found if kind != "number" or re.search(r"\d", one))


def _replaced(sentence: str, term: Term, new: str) -> str:
    return sentence[: term.start] + new + sentence[term.end :]


def _near_number(surface: str, rng: random.Random) -> str:
    """The number with its last digit changed: 1973 -> 1978, 12.5% -> 12.1%."""
    at = max(i for i, char in enumerate(surface) if char.isdigit())
    digit = rng.choice([d for d in "123456789" if d != surface[at]])
    return surface[:at] + digit + surface[at + 1 :]


_AUXILIARY = re.compile(
    r"\b(is|are|was|were|has|have|had|can|could|will|would|may|might|must|should|does|do|did)\b(?!\s+not\b|n't)"
)
_NEGATION = re.compile(r"\b(?:(do|does|did) not|(?<=[a-z] )not|never|(can)not)\b(?! only)")


def _negation_removed(sentence: str) -> str | None:
    """The sentence without its only negation; None when it has none or several."""
    hits = list(_NEGATION.finditer(sentence))
    if len(hits) != 1:
        return None
    kept = hits[0][1] or hits[0][2] or ""
    return " ".join((sentence[: hits[0].start()] + kept + sentence[hits[0].end() :]).split())


def _negation_added(sentence: str) -> str | None:
    hit = _AUXILIARY.search(sentence)
    return sentence[: hit.end()] + " not" + sentence[hit.end() :] if hit else None


def status(sentence: str, evidence: str, distractor: str) -> str:
    """What `verify` says of the sentence citing the evidence, with another chunk beside it."""
    chunks = [_chunk("evidence", evidence), _chunk("other", distractor)]
    return verify(f"{sentence} [1]", chunks)[-1]["status"]


def given_marker(sentence: str, evidence: str, distractor: str) -> int | None:
    """The marker that the sentence is given where it has none: 2 is the evidence, 1 the distractor."""
    return bears_out(sentence, [_chunk("other", distractor), _chunk("evidence", evidence)])


def _chunk(name: str, text: str) -> ScoredChunk:
    return ScoredChunk(
        chunk=Chunk(id=name, source=name, title="", text=text, start=0, end=len(text), index=0), score=1.0
    )


def measure(items: Sequence[Item], seed: int = 0) -> dict[str, Any]:
    """Run everything; deterministic for one seed."""
    rng = random.Random(seed)
    groups: dict[str, list[str]] = {}
    kinds: dict[str, list[tuple[str, str]]] = {}
    markers: dict[str, list[int | None]] = {}
    took = 0.0
    for item in items:
        began = time.perf_counter()
        own = status(item.sentence, item.evidence, item.distractor)
        groups.setdefault(item.group, []).append(own)
        twins = list(changed(item, rng))
        for kind, sentence in twins:
            kinds.setdefault(kind, []).append((own, status(sentence, item.evidence, item.distractor)))
        took += time.perf_counter() - began
        for name, sentence in [(item.group, item.sentence), *twins]:
            markers.setdefault(name, []).append(given_marker(sentence, item.evidence, item.distractor))
    calls = sum(map(len, groups.values())) + sum(map(len, kinds.values()))
    return {
        "supported": {name: _shares(found) | _marked(markers[name]) for name, found in groups.items()},
        "changed": {name: _precision(pairs) | _marked(markers[name]) for name, pairs in sorted(kinds.items())},
        "ms_per_sentence": round(took * 1000 / max(calls, 1), 2),
    }


def _marked(found: Sequence[int | None]) -> dict[str, Any]:
    marked = [number for number in found if number is not None]
    return {
        "marked": round(len(marked) / len(found), 4),
        "rightly": round(marked.count(2) / len(marked), 4) if marked else None,
    }


def _shares(found: Sequence[str]) -> dict[str, Any]:
    return {"n": len(found)} | {
        name: round(found.count(name) / len(found), 4) for name in ("verified", "partial", "unsupported")
    }


def _precision(pairs: Sequence[tuple[str, str]]) -> dict[str, Any]:
    right = sum(own == "verified" for own, _ in pairs)
    wrong = sum(twin == "verified" for _, twin in pairs)
    return {
        "n": len(pairs),
        "precision": round(right / (right + wrong), 4) if right + wrong else None,
        "recall": round(right / len(pairs), 4),
        "still_verified": wrong,
        "called_unsupported": round(sum(twin == "unsupported" for _, twin in pairs) / len(pairs), 4),
    }


def _mark(row: dict[str, Any]) -> str:
    return f"{row['marked']:>9.3f}" + ("" if row["rightly"] is None else f"{row['rightly']:>9.3f}")


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m evals.citations", description=__doc__.splitlines()[0] if __doc__ else ""
    )
    add_data(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    args = parser.parse_args()
    result = measure([*clapnq(args.data / "clapnq"), *scifact(args.data / "scifact")])
    if args.json:
        print(json.dumps(result, indent=2))
        return
    print(
        f"{'supported sentences':<36}{'n':>6}{'verified':>10}{'partial':>10}{'unsupported':>13}{'marked':>9}{'rightly':>9}"
    )
    for name, row in result["supported"].items():
        print(
            f"{name:<36}{row['n']:>6}{row['verified']:>10.3f}{row['partial']:>10.3f}{row['unsupported']:>13.3f}{_mark(row)}"
        )
    print(
        f"\n{'one thing changed':<36}{'n':>6}{'precision':>10}{'recall':>10}{'still verified':>16}{'marked':>9}{'rightly':>9}"
    )
    for name, row in result["changed"].items():
        print(
            f"{name:<36}{row['n']:>6}{row['precision'] or 0:>10.3f}{row['recall']:>10.3f}{row['still_verified']:>16}{_mark(row)}"
        )
    print(f"\n{result['ms_per_sentence']} ms per sentence")


if __name__ == "__main__":
    main()
