"""A recipe: everything a training run depends on, as one frozen value; strict YAML in, YAML out.

Every setting has its docstring below it, which is also the help of its command-line flag.
"""

from __future__ import annotations

import dataclasses
import math
import re
import sys
import types
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Union

import yaml

from kdaug.errors import InputError, nearest

DatasetName = Literal["bundled", "cifar-10", "cifar-100", "fashion-mnist", "folder"]
Crop = Literal["none", "pad", "random-resized"]
Reading = Literal["as-written", "renormalized", "grouped"]
Precision = Literal["auto", "float32", "bfloat16"]
MAX_PROCESSES = 1 << 10
MAX_SIDE = 1 << 14
"""Largest side in pixels that a setting may ask for."""


@dataclass(frozen=True)
class Data:
    """Which images."""

    name: DatasetName = "bundled"
    """Data set: the bundled Fashion-MNIST part, a named set, or a folder with one sub-folder of images per class."""
    root: str = "data"
    """Folder that holds the named sets; for `folder`, the image folder itself (train/ and val/, or the classes)."""
    download: bool = False
    """Fetch a named set through torchvision if it is not under root."""
    train_images: int | None = None
    """Train on this many images only, chosen evenly over the classes; None: on all."""
    image_size: int | None = None
    """Side in pixels that folder images are brought to; None: 224. Named sets keep their own size."""
    val_fraction: float = 0.1
    """Share of each class held out for validation when the folder has no train/ and val/."""
    max_unreadable: float = 0.01
    """Share of images that may turn out unreadable before training stops."""
    workers: int = 2
    """Processes that decode folder images; 0 decodes in the main process."""


@dataclass(frozen=True)
class Views:
    """What the networks get to see of each image."""

    policy: str = "none"
    """Augmentation policy, such as randaugment-n2-m9@tf-efficientnet, or none."""
    magnitude: float | None = None
    """Shorthand: replaces the magnitude in the policy's specification."""
    crop: Crop = "pad"
    """Random crop: none, pad (with the mean, then crop back), random-resized (area and aspect ratio; folders only)."""
    pad: int = 4
    """Pixels added on each side before a pad crop."""
    min_area: float = 0.08
    """Smallest share of the image that a random-resized crop may take."""
    flip: bool = True
    """Mirror left-right with probability one half."""
    cutout: int = 0
    """Side in pixels of the square erased at the end; 0: none."""
    seed: int | None = None
    """Key of all views and of the sample order; None: run.seed."""


@dataclass(frozen=True)
class Network:
    """The network that is trained."""

    name: str = "wide_resnet16_1"
    """Any name in timm's registry, ours included (wide_resnet28_10, ...)."""
    pretrained: bool = False
    """Start from timm's published weights (fetched by timm) with a new classifier."""


@dataclass(frozen=True)
class Teacher:
    """The network that looks at the same views and softens the labels."""

    source: str = "none"
    """none, train (first, once, with the settings below), run:DIR, file:PATH (safetensors or torch), timm:NAME."""
    network: str | None = None
    """Network for train, or of the weights at file:PATH; None: the student's (pretrained too if that is)."""
    policy: str = "none"
    """Augmentation policy that a teacher to be trained sees."""
    cutout: int = 0
    """Cutout side that a teacher to be trained sees."""
    epochs: int | None = None
    """Epochs that a teacher to be trained gets; None: as many as the student."""
    seed: int = 0
    """run.seed of a teacher to be trained, so that students of any seed share it."""
    mean: tuple[float, ...] | None = None
    """Per-channel mean in 0..1 that weights at file:PATH expect; None: what the file says, else the data's."""
    std: tuple[float, ...] | None = None
    """Per-channel standard deviation that goes with mean."""
    image_size: int | None = None
    """Side in pixels that the teacher's input is resized to; None: a run's or file's own, else that of the views."""


@dataclass(frozen=True)
class Supervision:
    """What the student is told: cross-entropy + weight x divergence over the teacher's top classes (paper Eq. 3)."""

    weight: float = 1.0
    """Weight of the divergence term (the paper's lambda), at least 0."""
    k: int = 5
    """How many of the teacher's top classes count; at least the number of classes: all, the ordinary KL."""
    temperature: float = 2.0
    """Softmax temperature of teacher and student in the divergence, above 0."""
    reading: Reading = "renormalized"
    """How the sum over the top classes is read; see kdaug.topk_divergence."""
    scale_by_t2: bool = True
    """Multiply the divergence by the squared temperature, as Hinton et al. do."""


@dataclass(frozen=True)
class Optimization:
    """SGD with Nesterov momentum, cosine to zero per step, gradients clipped at a global norm."""

    epochs: int = 200
    """Passes over the training images."""
    global_batch: int = 128
    """Images per optimisation step, over all devices together."""
    learning_rate: float = 0.1
    """Learning rate at the first step."""
    momentum: float = 0.9
    """Momentum of SGD."""
    weight_decay: float = 5e-4
    """L2 weight decay, on all parameters."""
    clip_norm: float | None = 5.0
    """Largest global gradient norm; None: no clipping."""
    precision: Precision = "auto"
    """Autocast type; auto: bfloat16 where the device multiplies it natively (GPUs, AVX512-BF16 and AMX processors)."""


@dataclass(frozen=True)
class Run:
    """Where and how the run takes place; nothing here but the seed changes what is learned."""

    dir: str | None = None
    """Run directory; None: runs/<recipe>-<what differs>."""
    seed: int = 0
    """Seed of the network's initial weights and noise, and of the views unless views.seed is given."""
    resume: bool = False
    """Continue the run in run.dir if it has begun."""
    device: str = "auto"
    """auto (a GPU if there is one), cpu, cuda, cuda:1, ..."""
    threads: int | None = None
    """CPU threads of torch; None: all cores but one, which prepares the views. Too many slow each other down badly."""
    evaluate_every: int = 1
    """Epochs between evaluations; the last epoch is always evaluated."""
    checkpoint_minutes: float = 5.0
    """Minutes between checkpoints; one is also written at each evaluation and when the run is interrupted."""


@dataclass(frozen=True)
class Recipe:
    """A whole experiment. Build one in Python, read one from YAML, or start from a named recipe."""

    data: Data = field(default_factory=Data)
    views: Views = field(default_factory=Views)
    student: Network = field(default_factory=Network)
    teacher: Teacher = field(default_factory=Teacher)
    supervision: Supervision = field(default_factory=Supervision)
    optimization: Optimization = field(default_factory=Optimization)
    run: Run = field(default_factory=Run)


def check(recipe: Recipe) -> Recipe:
    """The recipe itself, or InputError naming the first setting whose value is outside its range."""
    d, v, t = recipe.data, recipe.views, recipe.teacher
    s, o, r = recipe.supervision, recipe.optimization, recipe.run
    rules = [
        ("data.train_images", d.train_images, d.train_images is None or d.train_images >= 1, "at least 1"),
        ("data.image_size", d.image_size, _side_or_none(d.image_size), f"from 1 to {MAX_SIDE}"),
        ("data.val_fraction", d.val_fraction, 0 < d.val_fraction < 1, "between 0 and 1"),
        ("data.max_unreadable", d.max_unreadable, 0 <= d.max_unreadable <= 1, "from 0 to 1"),
        ("data.workers", d.workers, 0 <= d.workers <= MAX_PROCESSES, f"from 0 to {MAX_PROCESSES}"),
        ("views.magnitude", v.magnitude, v.magnitude is None or 0 <= v.magnitude < math.inf, "at least 0"),
        ("views.pad", v.pad, 0 <= v.pad <= MAX_SIDE, f"from 0 to {MAX_SIDE}"),
        ("views.min_area", v.min_area, 0 < v.min_area <= 1, "above 0 and at most 1"),
        ("views.cutout", v.cutout, 0 <= v.cutout <= MAX_SIDE, f"from 0 to {MAX_SIDE}"),
        ("views.seed", v.seed, v.seed is None or 0 <= v.seed < 1 << 63, "from 0 to 2^63-1"),
        ("teacher.cutout", t.cutout, 0 <= t.cutout <= MAX_SIDE, f"from 0 to {MAX_SIDE}"),
        ("teacher.image_size", t.image_size, _side_or_none(t.image_size), f"from 1 to {MAX_SIDE}"),
        ("teacher.seed", t.seed, 0 <= t.seed < 1 << 63, "from 0 to 2^63-1"),
        ("teacher.epochs", t.epochs, t.epochs is None or t.epochs >= 1, "at least 1"),
        ("supervision.weight", s.weight, 0 <= s.weight < math.inf, "at least 0"),
        ("supervision.k", s.k, s.k >= 1, "at least 1"),
        ("supervision.temperature", s.temperature, 0 < s.temperature < math.inf, "above 0"),
        ("optimization.epochs", o.epochs, o.epochs >= 1, "at least 1"),
        ("optimization.global_batch", o.global_batch, o.global_batch >= 1, "at least 1"),
        ("optimization.learning_rate", o.learning_rate, 0 < o.learning_rate < math.inf, "above 0"),
        ("optimization.momentum", o.momentum, 0 < o.momentum < 1, "between 0 and 1"),
        ("optimization.weight_decay", o.weight_decay, 0 <= o.weight_decay < math.inf, "at least 0"),
        ("optimization.clip_norm", o.clip_norm, o.clip_norm is None or 0 < o.clip_norm < math.inf, "above 0, or None"),
        ("run.seed", r.seed, 0 <= r.seed < 1 << 63, "from 0 to 2^63-1"),
        ("run.threads", r.threads, r.threads is None or 1 <= r.threads <= MAX_PROCESSES, f"from 1 to {MAX_PROCESSES}"),
        ("run.evaluate_every", r.evaluate_every, r.evaluate_every >= 1, "at least 1"),
        ("run.checkpoint_minutes", r.checkpoint_minutes, 0 <= r.checkpoint_minutes < math.inf, "at least 0"),
    ]  # fmt: skip
    for name, value, holds, range_in_words in rules:
        if not holds:
            raise InputError(f"{name} is {value}, but must be {range_in_words}")
    if (t.mean is None) != (t.std is None):
        raise InputError("teacher.mean and teacher.std belong together; give both or neither")
    if t.mean is not None and t.std is not None and (len(t.mean) != len(t.std) or min(t.std, default=0) <= 0):
        raise InputError("teacher.std must have as many values as teacher.mean, all above 0")
    return recipe


def _side_or_none(side: int | None) -> bool:
    return side is None or 1 <= side <= MAX_SIDE


def to_dict(recipe: Recipe) -> dict[str, Any]:
    """The recipe as nested plain dicts, lists and scalars, in the order of its declaration."""
    return {key: _plain(value) for key, value in dataclasses.asdict(recipe).items()}


def to_yaml(recipe: Recipe) -> str:
    """The recipe as YAML text; `from_yaml` gives the same recipe back."""
    return yaml.dump(to_dict(recipe), Dumper=_PlainDumper, sort_keys=False, allow_unicode=True)


def from_yaml(text: str, where: str = "recipe") -> Recipe:
    """The recipe that YAML `text` describes; settings left out keep their defaults.

    Raises InputError, beginning with `where`, for broken YAML, tags, an unknown or repeated key, or a wrong type.
    """
    try:
        tree = parse_plain_yaml(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).replace('in "<unicode string>", ', "at ").split())
        raise InputError(f"{where}: not readable as plain YAML: {reason}") from None
    if tree is None:
        raise InputError(f"{where} is empty; kdaug recipes show NAME prints one to start from")
    recipe: Recipe = _build(Recipe, tree, "", where)
    try:
        return check(recipe)
    except InputError as error:
        raise InputError(f"{where}: {error}") from None


def read_recipe(path: str | Path) -> Recipe:
    """The recipe in the YAML file at `path`; InputError if it is missing, not text, or not a recipe."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except FileNotFoundError:
        raise InputError(f"recipe {path} does not exist") from None
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise InputError(f"recipe {path} cannot be read: {reason}") from None
    return from_yaml(text, where=f"recipe {path}")


def parse_plain_yaml(text: str) -> Any:
    """Nested dicts, lists and scalars; YAMLError or ValueError for what is not plain YAML, tags among it."""
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        tag = getattr(event, "tag", None)
        if tag:
            raise yaml.YAMLError(f"tag {tag} is not allowed, {event.start_mark}")
    return yaml.load(text, Loader=_StrictLoader)


class _StrictLoader(yaml.SafeLoader):
    """Safe YAML in which 1e-3 is a number and a key may stand only once."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.constructor.ConstructorError(None, None, f"{key} stands more than once", node.start_mark)
        return super().construct_mapping(node, deep)


class _PlainDumper(yaml.SafeDumper):
    """Quotes text that _StrictLoader would take for something else."""

    def represent_text(self, text: str) -> yaml.ScalarNode:
        style = '"' if set(text) & set("\x85\u2028\u2029") else None  # line breaks to YAML 1.1
        return self.represent_scalar("tag:yaml.org,2002:str", text, style)


_PlainDumper.add_representer(str, _PlainDumper.represent_text)
for _side in (_StrictLoader, _PlainDumper):
    _side.add_implicit_resolver(
        "tag:yaml.org,2002:float", re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
    )


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return list(value) if isinstance(value, tuple) else value


def _build(kind: Any, tree: Any, path: str, where: str) -> Any:
    """An instance of dataclass `kind` from the dict `tree`, which stands at dotted `path` of the recipe."""
    if not isinstance(tree, dict):
        raise InputError(f"{where}: {path or 'the whole'} must be a mapping of settings, not {_shown(tree)}")
    types_of = typing.get_type_hints(kind)
    for key in tree:
        if key not in types_of:
            known = [_dotted(path, name) for name in types_of]
            name = _dotted(path, str(key))
            raise InputError(f"{where}: {name} is not a setting{nearest(name, known) or _choices(known)}")
    values = {}
    for key, value in tree.items():
        name, wanted = _dotted(path, key), types_of[key]
        build = _build if dataclasses.is_dataclass(wanted) else _convert
        values[key] = build(wanted, value, name, where)
    return kind(**values)


def _convert(wanted: Any, value: Any, name: str, where: str) -> Any:
    """`value` as type `wanted`; the only conversions are int to float and list to tuple."""
    options = typing.get_args(wanted) if typing.get_origin(wanted) in (Union, types.UnionType) else (wanted,)
    for option in options:
        origin = typing.get_origin(option)
        if origin is Literal and value in typing.get_args(option):
            return value
        if option is type(None) and value is None:
            return None
        if option is float and type(value) in (int, float) and abs(value) <= sys.float_info.max:
            return float(value)
        if origin is tuple and isinstance(value, list | tuple):
            kind = typing.get_args(option)[0]
            return tuple(_convert(kind, item, f"{name}[{i}]", where) for i, item in enumerate(value))
        if isinstance(option, type) and type(value) is option and option is not float:
            return value
    first = options[0]
    if typing.get_origin(first) is Literal:
        known = list(typing.get_args(first))
        raise InputError(f"{where}: {name} is {_shown(value)}{nearest(str(value), known) or _choices(known)}")
    raise InputError(f"{where}: {name} must be {_type_in_words(options)}, not {_shown(value)}")


def _dotted(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key


def _choices(known: list[str]) -> str:
    return f"; there are {', '.join(known)}"


def _shown(value: Any) -> str:
    return f"{value!r} ({type(value).__name__})"


def _type_in_words(options: tuple[Any, ...]) -> str:
    words = {
        int: "a whole number", float: "a finite number", str: "text", bool: "true or false", type(None): "null",
    }  # fmt: skip
    return " or ".join(words.get(option, "a list of numbers") for option in options)
