"""Pack a dataset once, into the one format that training reads.

python -m experiments.pack dataset=tiny_imagenet dataset.source=PATH_TO_ZIP_OR_FOLDER
"""

from collections import Counter

from experiments.cli import command
from transferability.config import Config
from transferability.pack import pack


def main(config: Config) -> None:
    dataset = pack(config.dataset)
    groups = Counter(c.group for c in dataset.classes if c.group)
    kinds = f" ({', '.join(f'{n} {g}' for g, n in groups.items())})" if groups else ""
    skipped = dataset.meta["skipped"]
    counts = (
        f"{dataset.n_train} training{',' if dataset.n_test else ' and'} {dataset.n_val} validation"
    )
    tests = f" and {dataset.n_test} test" if dataset.n_test else ""
    print(
        f"{dataset.folder}: {len(dataset.classes)} classes{kinds}, {counts}{tests} images of "
        f"{dataset.image_size}x{dataset.image_size}, checksum {dataset.checksum[:12]}"
    )
    for name, reason in skipped.items():
        print(f"skipped {name}: {reason}")


if __name__ == "__main__":
    command(main)()
