from dataclasses import replace

import numpy as np
import pytest

from transferability.data.config import DatasetConfig, GrammarConfig
from transferability.data.pack import pack
from transferability.data.readers.random_hierarchy import FAMILIES, make_grammar
from transferability.errors import UserError
from transferability.rng import numpy_rng

SMALL = GrammarConfig(
    classes_per_family=5, symbols=6, rules=3, levels=3, patch=3, train_per_class=4, val_per_class=3
)


def dataset(folder, grammar=SMALL, **settings):
    side = grammar.patch * 2**grammar.levels
    return DatasetConfig(
        "procedural",
        "procedural",
        str(folder),
        **{"image_size": side, "grammar": grammar, **settings},
    )


def same_rules(a, b, family, level):
    return np.array_equal(a.rules[family][level], b.rules[family][level])


def test_a_grammar_and_its_images_are_functions_of_the_seed():
    one = make_grammar(SMALL)
    again = make_grammar(SMALL)
    other = make_grammar(replace(SMALL, seed=1))
    assert np.array_equal(one.terminals, again.terminals)
    assert not np.array_equal(one.terminals, other.terminals)
    for family in (0, 1):
        for level in (1, 2, 3):
            assert same_rules(one, again, family, level)
            assert not same_rules(one, other, family, level)
    image = one.image(1, 2, "train", 0)
    again.image(0, 0, "train", 5)  # what was drawn before does not matter
    assert np.array_equal(image, again.image(1, 2, "train", 0))
    for key in ((1, 2, "train", 1), (1, 2, "val", 0), (1, 3, "train", 0), (0, 2, "train", 0)):
        assert not np.array_equal(image, one.image(*key))
    assert not np.array_equal(image, other.image(1, 2, "train", 0))


def test_the_packed_images_are_a_function_of_the_seeds(tmp_path):
    one, again = pack(dataset(tmp_path / "one")), pack(dataset(tmp_path / "again"))
    other = pack(dataset(tmp_path / "other", replace(SMALL, seed=1)))
    reordered = pack(dataset(tmp_path / "reordered", seed=1))
    assert one.checksum == again.checksum
    assert len({one.checksum, other.checksum, reordered.checksum}) == 3

    def images(packed, rows):
        return sorted(image.tobytes() for image in packed.images[rows])

    for rows in (slice(0, one.n_train), slice(one.n_train, None)):
        assert images(one, rows) == images(reordered, rows)
        assert images(one, rows) != images(other, rows)


def test_the_packed_classes_and_counts(tmp_path):
    packed = pack(dataset(tmp_path / "one"))
    assert packed.images.shape == (70, 24, 24, 3) and packed.images.dtype == np.uint8
    assert packed.n_train == 40
    assert np.bincount(packed.labels[:40]).tolist() == [4] * 10
    assert np.bincount(packed.labels[40:]).tolist() == [3] * 10
    assert [c.group for c in packed.classes] == [FAMILIES[0]] * 5 + [FAMILIES[1]] * 5
    assert len({c.name for c in packed.classes}) == 10
    assert len({image.tobytes() for image in packed.images}) == 70
    grammar = make_grammar(SMALL)
    for label in (0, 7):
        found = {image.tobytes() for image in packed.images[packed.train_rows([label])]}
        assert found == {grammar.image(*divmod(label, 5), "train", i).tobytes() for i in range(4)}


@pytest.mark.parametrize("shared", [0, 1, 2])
def test_families_share_the_lowest_levels_and_no_other(shared):
    grammar = make_grammar(replace(SMALL, shared_levels=shared))
    for level in (1, 2, 3):
        equal = np.array_equal(grammar.rules[0][level], grammar.rules[1][level])
        assert equal == (level <= shared), level


@pytest.mark.parametrize("shared", [0, 1])
def test_sharing_one_level_more_changes_the_rules_of_that_level_only(shared):
    less, more = (make_grammar(replace(SMALL, shared_levels=s)) for s in (shared, shared + 1))
    for family in (0, 1):
        for level in (1, 2, 3):
            assert same_rules(less, more, family, level) == (level != shared + 1), (family, level)
    assert np.array_equal(less.terminals, more.terminals)


@pytest.mark.parametrize("crowded", [False, True])
def test_no_two_symbols_of_a_level_share_a_production(crowded):
    # crowded: the classes of both families, 8 x 2, take all of the 2^4 blocks there are
    packed_tight = GrammarConfig(classes_per_family=4, symbols=2, rules=2)
    config = packed_tight if crowded else SMALL
    grammar = make_grammar(config)
    for family in (0, 1):
        for level in (1, 2, 3):
            rules = grammar.rules[family][level]
            count = config.classes_per_family if level == config.levels else config.symbols
            assert rules.shape == (count, config.rules, 4)
            assert rules.min() >= 0 and rules.max() < config.symbols
            assert len(np.unique(rules.reshape(-1, 4), axis=0)) == count * config.rules
    of_classes = np.concatenate([own[3].reshape(-1, 4) for own in grammar.rules])
    assert len(np.unique(of_classes, axis=0)) == len(of_classes)


def parse(symbols, rules):
    """The symbol that an array of terminals was expanded from;
    KeyError on a block that is no production.
    """
    for level in sorted(rules):
        parents = {
            tuple(block): parent for parent, blocks in enumerate(rules[level]) for block in blocks
        }
        size = len(symbols) // 2
        blocks = [
            [symbols[2 * y : 2 * y + 2, 2 * x : 2 * x + 2].ravel() for x in range(size)]
            for y in range(size)
        ]
        symbols = np.array([[parents[tuple(block)] for block in row] for row in blocks])
    assert symbols.shape == (1, 1)
    return symbols[0, 0]


@pytest.mark.parametrize("shared", [0, 2])
def test_an_image_parses_back_to_its_class(shared):
    grammar = make_grammar(replace(SMALL, shared_levels=shared))
    seen = set()
    for family in (0, 1):
        for label in range(5):
            for i in range(6):
                symbols = grammar.derive(family, label, numpy_rng("test", family, label, i))
                assert symbols.shape == (8, 8)
                assert parse(symbols, grammar.rules[family]) == label
                seen.add(symbols.tobytes())
    assert len(seen) == 60  # the choice of rules is random


def test_every_rule_of_a_class_is_used():
    grammar = make_grammar(replace(SMALL, levels=1, shared_levels=0))
    drawn = {grammar.derive(0, 3, numpy_rng(i)).ravel().tobytes() for i in range(60)}
    assert drawn == {production.tobytes() for production in grammar.rules[0][1][3]}


def test_without_nuisance_an_image_is_its_terminals():
    grammar = make_grammar(replace(SMALL, noise=0.0, shift=0, brightness=0.0))
    image = grammar.image(1, 4, "val", 0)
    assert image.shape == (24, 24, 3) and image.dtype == np.uint8
    patches = [image[y : y + 3, x : x + 3] for y in range(0, 24, 3) for x in range(0, 24, 3)]
    drawn = np.clip(np.rint(128 + 56 * grammar.terminals), 0, 255)
    symbols = [int(np.flatnonzero((drawn == patch).all((1, 2, 3)))[0]) for patch in patches]
    assert parse(np.array(symbols).reshape(8, 8), grammar.rules[1]) == 4


def test_terminals_can_be_told_apart():
    terminals = make_grammar(GrammarConfig()).terminals
    assert terminals.shape == (10, 4, 4, 3)
    flat = terminals.reshape(10, -1)
    apart = np.sqrt(((flat[:, None] - flat[None]) ** 2).mean(-1))[~np.eye(10, dtype=bool)]
    # the noise is 0.4 a pixel, a patch has 48 values
    assert apart.min() > 0.05 and np.median(apart) > 0.4
    assert 0.5 < np.abs(flat).max() < 3


def test_the_nuisances():
    def image(**settings):
        return make_grammar(
            replace(SMALL, **{"noise": 0.0, "shift": 0, "brightness": 0.0, **settings})
        ).image(0, 0, 9)

    plain = image().astype(float)
    rolls = [np.roll(plain, (y, x), (0, 1)) for y in (-1, 0, 1) for x in (-1, 0, 1)]
    assert sum(np.array_equal(image(shift=1), roll) for roll in rolls) == 1
    inside = (plain > 1) & (plain < 254)
    noise = (image(noise=0.4) - plain)[inside & (image(noise=0.4) > 0) & (image(noise=0.4) < 255)]
    assert 0.4 * 56 * 0.8 < noise.std() < 0.4 * 56 * 1.1  # clipping takes some of it away
    bright = image(brightness=0.2).astype(float)
    slope, offset = np.polyfit(plain[inside] - 128, bright[inside] - 128, 1)
    assert 0.8 <= slope <= 1.2 and abs(offset) <= 0.2 * 56 + 1 and (slope, offset) != (1, 0)


def test_every_image_has_noise_of_its_own():
    def noise(*key):
        return (make_grammar(SMALL).image(*key).astype(float) - quiet.image(*key)).ravel()

    quiet = make_grammar(replace(SMALL, noise=0.0))
    keys = [
        (0, 2, "train", 0),
        (1, 2, "train", 0),
        (0, 3, "train", 0),
        (0, 2, "val", 0),
        (0, 2, "train", 1),
    ]
    related = np.corrcoef([noise(*key) for key in keys])
    # 1728 values: 6 standard deviations
    assert np.abs(related[~np.eye(5, dtype=bool)]).max() < 0.15


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"shared_levels": 3}, r"dataset\.grammar\.shared_levels=3 .* 0 to levels-1=2"),
        ({"shared_levels": -1}, r"dataset\.grammar\.shared_levels=-1 "),
        ({"levels": 1}, r"dataset\.grammar\.shared_levels=1 .* 0 to levels-1=0"),
        ({"levels": 0}, r"dataset\.grammar\..*levels"),
        ({"symbols": 1}, r"dataset\.grammar\.symbols=1 .* distinct productions"),
        ({"symbols": 2, "rules": 3}, r"dataset\.grammar\.classes_per_family=20 .* at most 2\^4"),
        (
            {"classes_per_family": 2501},
            r"dataset\.grammar\.classes_per_family=2501 .* at most 10\^4",
        ),
        ({"families": 3}, r"dataset\.grammar\.families=3 "),
        ({"levels": 4}, r"dataset\.image_size=32 .* = 64 pixels"),
    ],
)
def test_impossible_grammars_are_one_clear_line(settings, message):
    config = dataset("unused", replace(GrammarConfig(), **settings), image_size=32)
    with pytest.raises(UserError, match=message) as error:
        config.check()
    assert "\n" not in str(error.value)


def test_the_most_crowded_grammar_is_possible():
    GrammarConfig(classes_per_family=4, symbols=2, rules=2).check()
    dataset("unused").check()
