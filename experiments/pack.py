"""Pack a dataset once into the format that training reads.

python -m experiments.pack experiment=tiny_imagenet dataset.source=PATH
python -m experiments.pack experiment=folder dataset.name=mine dataset.source=photographs.zip

Settings used most:
dataset=KIND             imagenet, tiny_imagenet, folder, torchvision ... (conf/dataset/)
dataset.source=PATH      the images: a folder, a zip or tar file
dataset.name=NAME        the name of this dataset in later commands
dataset.image_size=N     packed image size in pixels; dataset.fit=crop keeps the aspect ratio
dataset.test_fraction=X  the share of each class that is held out for test
dataset.on_error=skip    leave corrupt images out
"""

from experiments.cli import run_module

if __name__ == "__main__":  # above the imports, which --help does not need
    raise SystemExit(run_module(__spec__.name))

from collections import Counter

from transferability.data.mirrors import warn_of_mirrored
from transferability.data.pack import pack
from transferability.errors import and_more, shown
from transferability.study.config import Config

SHOWN = 5  # names of classes


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
        f"{dataset.image_size}x{dataset.image_size}, checksum {dataset.checksum[:12]}; the classes "
        f"are {_listed([c.name for c in dataset.classes])}"
    )
    # the recipe of training is not known yet
    warn_of_mirrored([c.name for c in dataset.classes], ": train with recipe.mirror=false")
    for name, reason in skipped.items():
        print(f"skipped {name}: {reason}")


def _listed(names: list[str]) -> str:
    return shown(", ".join(names[:SHOWN]) + and_more(names[SHOWN - 1 :]))
