"""The settings of a recipe. Each has its docstring below it, which is also the help of its command-line flag."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

DatasetName = Literal["bundled", "cifar-10", "cifar-100", "fashion-mnist", "folder", "shards", "hub"]
Crop = Literal["none", "pad", "random-resized"]
Reading = Literal["as-written", "renormalized", "grouped"]
Precision = Literal["auto", "float32", "bfloat16", "float16"]
Optimizer = Literal["sgd", "rmsprop-tf", "adamw"]
Schedule = Literal["cosine", "staircase", "milestones"]
DecayOn = Literal["all", "weights"]
Watched = Literal["all", "policy", "clean"]
Divergence = Literal["top-k", "hard", "decoupled"]
WeightSchedule = Literal["constant", "rising", "falling"]
Tracker = Literal["wandb", "mlflow", "trackio"]


@dataclass(frozen=True)
class Data:
    """Which images."""

    name: DatasetName = "bundled"
    """Data set: the bundled Fashion-MNIST part; a named set; folder: one sub-folder of images per class; shards:
    WebDataset's tar files; hub: a Hugging Face data set (pip install 'kdaug[hub]')."""
    root: str = "data"
    """Folder that holds the named sets; for folder the images (train/ and val/, or the classes), for shards the tar
    files; for hub OWNER/NAME, or a folder."""
    download: bool = False
    """Fetch a named set through torchvision if it is not under root."""
    train_images: int | None = None
    """Train on this many images only, chosen evenly over the classes; None: on all."""
    image_size: int | None = None
    """Side in pixels that images of folder, shards or hub are brought to; None: 224. Others keep their own size."""
    val_fraction: float = 0.1
    """Share of each class held out for validation when a folder, shards or hub have no validation images."""
    holdout: float = 0.0
    """Share of each class's training images set aside and evaluated on, so that test images choose no settings."""
    max_unreadable: float = 0.01
    """Share of images that may turn out unreadable before training stops."""
    workers: int = 2
    """Processes that decode images of folder, shards or hub, for each process that trains; 0 decodes in that one."""

    @property
    def encoded(self) -> bool:
        """Whether the images are the user's own, in files, and decoded when they are needed."""
        return self.name in ("folder", "shards", "hub")


@dataclass(frozen=True)
class Views:
    """What the networks get to see of each image."""

    policy: str = "none"
    """Augmentation policy, such as randaugment-n2-m9@tf-efficientnet, or none."""
    magnitude: float | None = None
    """Shorthand: replaces the magnitude in the policy's specification."""
    crop: Crop = "pad"
    """Random crop: none, pad (with the mean, and crop back), random-resized (area and ratio; not of named sets)."""
    pad: int = 4
    """Pixels added on each side before a pad crop."""
    min_area: float = 0.08
    """Smallest share of the image that a random-resized crop may take."""
    flip: bool = True
    """Mirror left-right with probability one half."""
    cutout: int = 0
    """Side in pixels of the square erased at the end; 0: none."""
    mixup: float = 0.0
    """Blend every view with another image's, by a share from Beta(mixup, mixup) (arXiv 1710.09412); 0: not."""
    cutmix: float = 0.0
    """Paste a box of another image's view into every view, its area from Beta(cutmix, cutmix) (arXiv 1905.04899); 0:
    not. With both, each view gets one of the two."""
    seed: int | None = None
    """Key of all views and of the sample order; None: run.seed."""


@dataclass(frozen=True)
class Network:
    """The network that is trained."""

    name: str = "wide_resnet16_1"
    """Any name in timm's registry, ours included (wide_resnet28_10, ...)."""
    pretrained: bool = False
    """Start from timm's published weights (fetched by timm) with a new classifier."""
    drop_path: float = 0.0
    """Stochastic depth: share of residual branches dropped in the last block, where the network has it."""
    dropout: float = 0.0
    """Share of features dropped before the classifier, where the network has it."""
    batch_norm_momentum: float | None = None
    """How far a batch moves the running statistics (torch's sense: 1 - TensorFlow's decay); None: the network's own."""


@dataclass(frozen=True)
class Teacher:
    """The network that looks at the same views and softens the labels."""

    source: str = "none"
    """none, train (first, once, with the settings below), run:DIR, file:PATH (safetensors or torch), timm:NAME."""
    labels: str | None = None
    """Folder of stored labels (kdaug label) that stand for the teacher, which is then not needed; None: ask it."""
    network: str | None = None
    """Network for train, or of the weights at file:PATH; None: the student's (pretrained too if that is)."""
    policy: str = "none"
    """Augmentation policy that a teacher to be trained sees."""
    cutout: int = 0
    """Cutout side that a teacher to be trained sees."""
    epochs: int | None = None
    """Epochs that a teacher to be trained gets; None: as many as the student."""
    learning_rate: float | None = None
    """Learning rate that a teacher to be trained gets; None: the student's."""
    weight_decay: float | None = None
    """Weight decay that a teacher to be trained gets; None: the student's."""
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
    reading: Reading = "as-written"
    """How the sum over the top classes is read; see kdaug.topk_divergence."""
    scale_by_t2: bool = True
    """Multiply the divergence by the squared temperature, as Hinton et al. do."""
    label_smoothing: float = 0.0
    """Share of the label's weight in the cross-entropy that is spread evenly over all classes."""
    when: Watched = "all"
    """In which epochs the teacher looks on: all, policy (not in the clean ones at the end), clean (in those alone)."""
    divergence: Divergence = "top-k"
    """top-k (the paper's), hard (cross-entropy with the class that the teacher puts first), decoupled (DKD)."""
    non_target_weight: float = 8.0
    """Weight of decoupled's part among the classes that are not the label's, against its part of label or not."""
    mass: float | None = None
    """Of the k classes, count for each view only the fewest that hold this share of the teacher's probability."""
    label_weight: float = 1.0
    """Weight of the cross-entropy with the label where a teacher looks on, at least 0; 0: soft labels alone."""
    label_trust: bool = False
    """Move label_weight to the divergence as far as the view has lost the label, as the teacher sees it."""
    weight_schedule: WeightSchedule = "constant"
    """constant, rising (weight grows from 0 over the run), falling (to 0); in a straight line."""
    weight_by_magnitude: bool = False
    """Multiply weight by the magnitude planned for each view: 0 if it is left as it is, 1 for an op in full."""
    drop_worst: float = 0.0
    """Share of each batch that is not learned: the views in which the teacher sees least of the label."""


@dataclass(frozen=True)
class Adversary:
    """AdvProp (arXiv 1911.09665): the student also learns images that are shifted to mislead it, with batch norms of
    their own."""

    steps: int = 0
    """Steps of projected gradient descent; 0: no adversary."""
    epsilon: float = 4.0
    """How far a pixel may be moved, in units of 0..255."""
    step_size: float = 1.0
    """How far a step moves a pixel, in the same units."""


@dataclass(frozen=True)
class Optimization:
    """How the weights follow the gradient: optimiser, learning rate over time, decay, clipping, averaging."""

    epochs: int = 200
    """Passes over the training images under the policy."""
    clean_epochs: int = 0
    """Further epochs at the end on clean views: crop and flip, without policy and cutout (paper Section 3.4)."""
    clean_learning_rate: float | None = None
    """Learning rate the clean epochs begin with, from where it falls to zero; None: a tenth of learning_rate."""
    global_batch: int = 128
    """Images per optimisation step, over all processes together."""
    optimizer: Optimizer = "sgd"
    """sgd (Nesterov), rmsprop-tf (TensorFlow's RMSProp, smoothing 0.9, epsilon 0.001, as EfficientNet's), adamw."""
    learning_rate: float = 0.1
    """Learning rate after the warm-up."""
    schedule: Schedule = "cosine"
    """cosine (to zero), staircase (x decay_rate every decay_epochs), milestones (x decay_rate at each of them)."""
    decay_rate: float = 0.97
    """What staircase and milestones multiply the learning rate by."""
    decay_epochs: float = 2.4
    """Epochs between the stairs of staircase, counted from the start of training."""
    milestones: tuple[float, ...] = ()
    """Epochs at which milestones lowers the learning rate."""
    warmup_epochs: float = 0.0
    """Epochs at the start in which the learning rate rises linearly from zero."""
    momentum: float = 0.9
    """Momentum of sgd and rmsprop-tf; the first beta of adamw."""
    weight_decay: float = 5e-4
    """Weight decay: L2 for sgd and rmsprop-tf, decoupled for adamw."""
    decay_on: DecayOn = "all"
    """Which parameters decay: all, or weights (not biases and norms, nor what the network itself excepts)."""
    clip_norm: float | None = 5.0
    """Largest global gradient norm; None: no clipping."""
    ema_decay: float | None = None
    """Average the weights, evaluate and keep that: decay a step, at most (1+step)/(10+step); None: no averaging."""
    sync_batch_norm: bool = False
    """Batch-norm statistics over all processes together (on GPUs), instead of each for its part of the batch."""
    precision: Precision = "auto"
    """Autocast type; auto: bfloat16 where the device multiplies it natively (GPUs, AVX512-BF16 and AMX processors)."""

    @property
    def all_epochs(self) -> int:
        """Passes over the training images, the clean ones among them."""
        return self.epochs + self.clean_epochs


@dataclass(frozen=True)
class Run:
    """Where and how the run takes place; nothing here but the seed changes what is learned, save by rounding (and by
    what batch-norm sees at once: a process takes its share of the batch, or run.device_batch of it)."""

    dir: str | None = None
    """Run directory; None: runs/<recipe>-<what differs>."""
    seed: int = 0
    """Seed of the network's initial weights and noise, and of the views unless views.seed is given."""
    resume: bool = False
    """Continue the run in run.dir if it has begun."""
    device: str = "auto"
    """auto (a GPU if there is one), cpu, cuda, cuda:1, ..."""
    device_batch: int | None = None
    """Most images a process takes at once; it adds up the gradients of several such parts. None: its whole share."""
    threads: int | None = None
    """CPU threads of torch; None: all cores but one, which prepares the views. Too many slow each other down badly."""
    evaluate_every: int = 1
    """Epochs between evaluations; the last epoch is always evaluated."""
    checkpoint_minutes: float = 5.0
    """Minutes between checkpoints; one is also written at each evaluation and when the run is interrupted."""
    checkpoint_steps: int | None = None
    """Optimisation steps between checkpoints, besides checkpoint_minutes; None: by minutes alone."""
    evaluate_size: int | None = None
    """Side in pixels that validation images are brought to for the student; None: as in training."""
    compile: bool = False
    """Compile the networks with torch.compile."""
    grad_checkpointing: bool = False
    """Compute activations again in the backward pass instead of keeping them: less memory, about a third slower."""
    shard: bool = False
    """Spread weights, gradients and optimiser state over the processes (FSDP2), for networks too large for one GPU."""
    trackers: tuple[Tracker, ...] = ()
    """Also report to these, besides metrics.jsonl and TensorBoard (pip install 'kdaug[trackers]')."""


@dataclass(frozen=True)
class Recipe:
    """A whole experiment. Build one in Python, read one from YAML, or start from a named recipe."""

    data: Data = field(default_factory=Data)
    views: Views = field(default_factory=Views)
    student: Network = field(default_factory=Network)
    teacher: Teacher = field(default_factory=Teacher)
    supervision: Supervision = field(default_factory=Supervision)
    adversary: Adversary = field(default_factory=Adversary)
    optimization: Optimization = field(default_factory=Optimization)
    run: Run = field(default_factory=Run)
