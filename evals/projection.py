"""Make `citewell/retrieval/projection.npz`: what late interaction needs to know of token vectors.

    python -m evals.projection CORPUS.jsonl [CORPUS.jsonl ...] [--passages 2000]

`projection`: the principal components (without centring, so that cosines are kept as well as may be) of the
built-in model's token vectors over a sample of each corpus, turned at random within their span, so that every dimension
carries as much and two bits suit each. `idf`: of every WordPiece over the passages of all corpora, 0 for punctuation.
No question and no judgement enters.
"""

import argparse
import random
from importlib.resources import files
from pathlib import Path

import numpy as np
from tokenizers import BertWordPieceTokenizer

from citewell.models.minilm import MiniLM
from citewell.retrieval import maxsim
from evals.command import existing
from evals.packs import read_jsonl

VOCABULARY = files("citewell.models").joinpath("vocab.txt")
OUT = Path(maxsim.__file__).with_name("projection.npz")
SEED = 20_260


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", nargs="+", type=existing)
    parser.add_argument("--passages", type=int, default=2000, help="sampled from each corpus")
    parser.add_argument("--dimensions", type=int, default=maxsim.DIMENSIONS)
    arguments = parser.parse_args()
    pieces = VOCABULARY.read_text("utf-8").splitlines()
    moments, documents, containing = np.zeros((384, 384)), 0, np.zeros(len(pieces))
    embedder, tokenizer = MiniLM(), BertWordPieceTokenizer(str(VOCABULARY), lowercase=True)
    for path in arguments.corpus:
        texts = [f"{row.get('title') or ''} {row['text']}".strip() for row in read_jsonl(path)]
        sample = random.Random(SEED).sample(texts, min(arguments.passages, len(texts)))
        encoded = embedder.encode(sample, tokens=True)
        assert encoded.tokens is not None
        stacked = np.concatenate(encoded.tokens).astype(np.float64)
        moments += stacked.T @ stacked / len(stacked)
        for encoding in tokenizer.encode_batch(texts):
            containing[np.unique(encoding.ids)] += 1
        documents += len(texts)
    embedder.close()
    values, directions = np.linalg.eigh(moments / len(arguments.corpus))
    kept = directions[:, ::-1][:, : arguments.dimensions]
    turn, _ = np.linalg.qr(np.random.default_rng(SEED).normal(size=(kept.shape[1],) * 2))
    idf = np.log(1 + (documents - containing + 0.5) / (containing + 0.5))
    idf[[not any(character.isalnum() for character in piece) for piece in pieces]] = 0
    np.savez_compressed(OUT, projection=(kept @ turn).astype(np.float16), idf=idf.astype(np.float16))
    print(f"{OUT}: {kept.shape[1]} of 384 dimensions keep {values[::-1][: kept.shape[1]].sum() / values.sum():.1%}")


if __name__ == "__main__":
    main()
