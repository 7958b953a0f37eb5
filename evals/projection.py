"""Make `citewell/retrieval/projection.npz`: the directions in which token vectors differ most.

    python -m evals.projection CORPUS.jsonl [CORPUS.jsonl ...] [--passages 2000]

Principal components without centring (so that cosines are kept as well as may be) of the built-in model's token
vectors over a sample of each corpus. No question and no judgement enters.
"""

import argparse
import random
from pathlib import Path

import numpy as np

from citewell.models.minilm import MiniLM
from citewell.retrieval import maxsim
from evals.packs import read_jsonl

OUT = Path(maxsim.__file__).with_name("projection.npz")
SEED = 20_260


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", nargs="+", type=Path)
    parser.add_argument("--passages", type=int, default=2000, help="sampled from each corpus")
    parser.add_argument("--dimensions", type=int, default=maxsim.DIMENSIONS)
    arguments = parser.parse_args()
    moments = np.zeros((384, 384))
    embedder = MiniLM()
    for path in arguments.corpus:
        texts = [f"{row.get('title') or ''} {row['text']}".strip() for row in read_jsonl(path)]
        sample = random.Random(SEED).sample(texts, min(arguments.passages, len(texts)))
        tokens = embedder.encode(sample, tokens=True).tokens or []
        stacked = np.concatenate(tokens).astype(np.float64)
        moments += stacked.T @ stacked / len(stacked)
    embedder.close()
    values, directions = np.linalg.eigh(moments / len(arguments.corpus))
    kept = directions[:, ::-1][:, : arguments.dimensions]
    np.savez_compressed(OUT, projection=kept.astype(np.float16))
    print(f"{OUT}: {kept.shape[1]} of 384 dimensions keep {values[::-1][: kept.shape[1]].sum() / values.sum():.1%}")


if __name__ == "__main__":
    main()
