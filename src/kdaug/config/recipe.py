"""The settings of a recipe. The docstring below each is the help of its flag; the annotation gives its range."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le, Lt, MinLen

from kdaug.config.datasets import ARRAY_DATASETS, DEFAULT_IMAGE_SIZE, DatasetName

MAX_PROCESSES = 1 << 10
MAX_SIDE = 1 << 14
MAX_FOLDS = 100

Count = Annotated[int, Ge(1)]
Positive = Annotated[float, Gt(0)]
NonNegative = Annotated[float, Ge(0)]
OpenFraction = Annotated[float, Gt(0), Lt(1)]
FractionBelow1 = Annotated[float, Ge(0), Lt(1)]
FractionAbove0 = Annotated[float, Gt(0), Le(1)]
Side = Annotated[int, Ge(1), Le(MAX_SIDE)]
"""Side of an image in pixels."""
Pixels = Annotated[int, Ge(0), Le(MAX_SIDE)]
Seed = Annotated[int, Ge(0), Lt(1 << 63)]
MixingAlpha = Annotated[float, Ge(0), Le(100)]
PixelDistance = Annotated[float, Gt(0), Le(255)]
Directory = Annotated[str, MinLen(1)]
NetworkArguments = dict[str, int | float | str | bool]
"""Arguments of a network by name. Not part of a settings class's hash, as dicts have none."""

Crop = Literal["none", "pad", "soft", "random-resized"]
Reading = Literal["as-written", "renormalized", "grouped"]
Precision = Literal["auto", "float32", "bfloat16", "float16"]
Optimizer = Literal["sgd", "rmsprop-tf", "adamw"]
Schedule = Literal["cosine", "staircase", "milestones"]
DecayOn = Literal["all", "weights"]
TeacherEpochs = Literal["all", "policy", "clean"]
Divergence = Literal["top-k", "hard", "decoupled", "dist"]
Method = Literal["paper", "robust", "kd", "kd-standardized", "dkd", "dist", "ferkd", "hard"]
WeightSchedule = Literal["constant", "rising", "falling"]
BalanceChoice = Literal["none", "sample", "loss", "auto"]
TrackerName = Literal["wandb", "mlflow", "trackio"]


@dataclass(frozen=True)
class Data:
    """The dataset and how its images are read.

    Errors are measured on its validation images. For bundled, CIFAR and Fashion-MNIST these are the test images.
    """

    name: DatasetName = "bundled"
    """Dataset: bundled (part of Fashion-MNIST) and omniglot (242 characters), which come with kdaug, a torchvision
    dataset, or your own images: folder (one sub-folder per class), shards (WebDataset tar files), hub (Hugging Face
    dataset; pip install 'kdaug[hub]')."""
    root: str = "data"
    """Directory of the dataset. folder: with train/ and val/, or the class folders. shards: with the tar files.
    hub: OWNER/NAME, or a directory."""
    download: bool = False
    """Download a torchvision dataset if it is not under root."""
    train_images: Count | None = None
    """Number of training images to use, balanced over the classes; None: all."""
    image_size: Side | None = None
    """Side in pixels that images of folder, shards or hub are resized to; None: 224. Other datasets keep their size."""
    val_fraction: OpenFraction = 0.1
    """Fraction of each class used for validation. Applies only to folder, shards or hub without validation images."""
    holdout: FractionBelow1 = 0.0
    """Fraction of each class's training images to use for validation, in place of the dataset's own validation images.
    For choosing settings. Applies to every dataset; 0: use its own."""
    measure_unused: bool = False
    """Measure errors also on the training images that train_images leaves out: more images, a smaller standard error.
    Images that holdout holds out are then not used at all, so that settings chosen on them are judged on others."""
    omit_fold: str | None = None
    """Train without one part of each class's training images: 0/5 is the first of five parts, split at random, always
    in the same way. kdaug sets it for the teachers of teacher.folds; None: train on all."""
    unlabelled: str | None = None
    """Images without labels, trained on with soft labels alone (as Noisy Student, arXiv 1911.04252): for folder, a
    directory of images; for datasets in memory, unused: the images that train_images leaves out. None: none."""
    unlabelled_share: OpenFraction = 0.5
    """With unlabelled: share of them in every batch. An epoch has every labelled image once."""
    max_unreadable: Annotated[float, Ge(0), Le(1)] = 0.01
    """Fraction of the images that may be unreadable before training stops with an error."""
    check: bool = False
    """For folder, shards or hub: when a run starts, look for unreadable files, for copies in training and validation
    images, in two classes or in one, and for small classes. The findings are logged and written to data-report.csv and
    data-report.json in the run directory."""
    balance: BalanceChoice = "none"
    """For classes of unequal size: sample (draw training images with equal class probability), loss (cross-entropy
    weighted by inverse class frequency), none, auto (if the smallest class has less than a fifth of the training images
    of the largest: sample, with teacher.labels or mixing loss; else none)."""
    workers: Annotated[int, Ge(0), Le(MAX_PROCESSES)] = 2
    """Decoding processes per training process for folder, shards or hub; 0: decode in the training process."""

    @property
    def omitted_fold(self) -> tuple[int, int] | None:
        """omit_fold as (fold that is left out, number of folds); None: none is. ValueError if it has another form."""
        if self.omit_fold is None:
            return None
        fold, folds = map(int, self.omit_fold.split("/"))
        return fold, folds

    @property
    def encoded(self) -> bool:
        """Whether the images are files that are decoded during training (folder, shards or hub)."""
        return self.name not in ARRAY_DATASETS

    @property
    def side(self) -> int:
        """Height and width in pixels of the images that the networks get."""
        return self.image_size or DEFAULT_IMAGE_SIZE if self.encoded else ARRAY_DATASETS[self.name].side

    @property
    def channels(self) -> int:
        """Number of channels of the images that the networks get: encoded images are converted to RGB."""
        return 3 if self.encoded else ARRAY_DATASETS[self.name].channels


@dataclass(frozen=True)
class Views:
    """Augmentation of the images that teacher and student get."""

    policy: str = "none"
    """Augmentation policy, such as randaugment-n2-m9@tf-efficientnet, or none; kdaug views lists them."""
    magnitude: NonNegative | None = None
    """Shorthand: replaces the magnitude in the policy specification."""
    magnitude_factors: str | None = None
    """For RandAugment: file of one factor for each training image, by which the magnitude is multiplied; written by
    kdaug recommend --per-image. None: all images have the same magnitude."""
    crop: Crop = "pad"
    """Random crop: none, pad (with the mean, then crop), soft (shift by a normal offset; Soft Augmentation, arXiv
    2211.04625), random-resized (area and ratio; for folder, shards, hub)."""
    pad: Pixels = 4
    """Pixels added on each side before a pad crop."""
    soft_crop_deviation: Annotated[float, Gt(0), Le(1)] = 0.3
    """For a soft crop: standard deviation of the offset, as a fraction of the image's side. The offset is less than the
    side."""
    min_area: FractionAbove0 = 0.08
    """Smallest fraction of the image area that a random-resized crop may take."""
    flip: bool = True
    """Flip left-right with probability 0.5."""
    cutout: Pixels = 0
    """Side in pixels of the square that cutout erases after all other ops; 0: no cutout."""
    mixup: MixingAlpha = 0.0
    """Alpha of mixup: blend each view with another, weights from Beta(alpha, alpha) (arXiv 1710.09412); 0: no mixup."""
    cutmix: MixingAlpha = 0.0
    """Alpha of CutMix: paste a box of another view, area from Beta(alpha, alpha) (arXiv 1905.04899); 0: no CutMix.
    With both mixup and CutMix, each view gets one of the two."""
    seed: Seed | None = None
    """Seed of all views and of the sample order; None: run.seed."""

    @property
    def mixes(self) -> bool:
        """Whether views are mixed from two images, by mixup or CutMix."""
        return bool(self.mixup or self.cutmix)


@dataclass(frozen=True)
class Network:
    """The student network."""

    name: str = "wide_resnet16_1"
    """Network name in timm's registry, including those of kdaug (wide_resnet28_10, ...)."""
    pretrained: bool = False
    """Start from timm's own weights of the network: short for weights timm:NAME with the student's name."""
    weights: str | None = None
    """Initial weights, with a new classifier if the classes differ: run:DIR, file:PATH (safetensors or torch),
    timm:NAME; None: random ones, or with pretrained timm's. Read when a run starts, not when it resumes."""
    mean: tuple[float, ...] | None = None
    """Per-channel mean of images in 0..1, for weights file:PATH; None: from the file, else timm's for the network, else
    the dataset's. Weights of a run, of kdaug or of timm come with their own."""
    std: tuple[Positive, ...] | None = None
    """Per-channel standard deviation that goes with mean; give both or neither."""
    drop_path: FractionBelow1 = 0.0
    """Stochastic depth: drop rate of the residual branch in the last block, if the network supports it."""
    dropout: FractionBelow1 = 0.0
    """Dropout rate before the classifier, if the network supports it."""
    batch_norm_momentum: FractionAbove0 | None = None
    """Batch-norm momentum as torch defines it (1 - TensorFlow's decay); None: the network's default."""
    arguments: NetworkArguments = field(default_factory=dict, hash=False)
    """Further arguments of the network, for timm.create_model, such as img_size=64 patch_size=8."""

    @property
    def initial_weights(self) -> str | None:
        """Where the initial weights come from, as in `weights`; None: they are random."""
        return f"timm:{self.name}" if self.pretrained else self.weights


@dataclass(frozen=True)
class Teacher:
    """The teacher network, which gives soft labels for the views that the student is trained on."""

    source: str = "none"
    """none, train (train it first, with the settings below), run:DIR, file:PATH (safetensors or torch), timm:NAME,
    bundled (the teacher of the omniglot images that comes with kdaug). Several, as run:A,run:B: their probabilities are
    averaged."""
    labels: str | None = None
    """Directory of stored labels (kdaug label), used instead of running the teacher; None: run the teacher."""
    network: str | None = None
    """For train or file:PATH: name of the network; None: the student's, with its initial weights."""
    weights: str | None = None
    """For train: initial weights of the teacher, as student.weights; None: the student's if teacher.network is None,
    else random ones."""
    policy: str = "none"
    """For train: augmentation policy of the teacher's training."""
    cutout: Pixels = 0
    """For train: side in pixels of the teacher's cutout; 0: no cutout."""
    epochs: Count | None = None
    """For train: epochs of the teacher; None: as the student."""
    learning_rate: Positive | None = None
    """For train: learning rate of the teacher; None: as the student."""
    weight_decay: NonNegative | None = None
    """For train: weight decay of the teacher; None: as the student."""
    label_smoothing: FractionBelow1 = 0.0
    """For train: label smoothing of the teacher. It costs the student accuracy (arXiv 1906.02629), so it is not the
    student's."""
    seed: Seed = 0
    """For train: run.seed of the teacher, so that students with different seeds share one teacher."""
    folds: Annotated[int, Ge(2), Le(MAX_FOLDS)] | None = None
    """For train: cross-fitting. Train this many teachers, each without one part of the training images; the soft labels
    of an image's views come from the teacher that was trained without it. None: one teacher, trained on all."""
    mean: tuple[float, ...] | None = None
    """Per-channel mean of images in 0..1, for the weights in file:PATH; None: from the file, else the dataset's.
    For train with teacher.weights file:PATH: as student.mean."""
    std: tuple[Positive, ...] | None = None
    """Per-channel standard deviation that goes with mean; give both or neither."""
    image_size: Side | None = None
    """Side in pixels that views are resized to for the teacher; None: as in the run or file, else the views' size."""
    arguments: NetworkArguments = field(default_factory=dict, hash=False)
    """For train, file:PATH or timm:NAME: arguments of its network (see student.arguments); for train and file:PATH
    without teacher.network, empty: the student's."""


@dataclass(frozen=True)
class Supervision:
    """Training loss: cross-entropy + weight x divergence over the teacher's top-k classes (loss: paper Eq. 2;
    divergence: Eq. 3)."""

    weight: NonNegative = 1.0
    """Weight of the divergence (lambda in the paper)."""
    k: Count | None = 5
    """Number of the teacher's top classes in the divergence; None, or the number of classes or more: KL over all."""
    temperature: Positive = 2.0
    """Softmax temperature of teacher and student in the divergence."""
    reading: Reading = "as-written"
    """Normalization of the sum over the top-k classes; see kdaug.topk_divergence."""
    scale_by_t2: bool = True
    """Multiply the divergence by the squared temperature (Hinton et al., arXiv 1503.02531)."""
    standardize_logits: bool = False
    """Divide the logits of each view, the teacher's and the student's, by their standard deviation over the classes
    before the temperature (Sun et al., arXiv 2403.01427). Not for hard."""
    label_smoothing: FractionBelow1 = 0.0
    """Label smoothing in the cross-entropy."""
    visible_power: Positive | None = None
    """Soften the label by what is visible of the image in its crop (pad or soft): the label's target probability is
    1 - (1 - 1/classes) x (1 - visible share)^power (Soft Augmentation, arXiv 2211.04625, Eq. 3); None: it is 1."""
    when: TeacherEpochs = "all"
    """Epochs that use the teacher: all, policy (not the clean epochs at the end), clean (only the clean epochs)."""
    divergence: Divergence = "top-k"
    """top-k (the paper's), hard (cross-entropy with the teacher's top class), decoupled (DKD, arXiv 2203.08679), dist
    (correlations over classes and over images, arXiv 2205.10536)."""
    non_target_weight: NonNegative = 8.0
    """For decoupled: weight of the non-target-class part (beta in DKD); the target-class part has weight 1."""
    mass: FractionAbove0 | None = None
    """As top-p in sampling: per view, use only the fewest of the top-k classes whose probabilities sum to at least
    this; None: all k."""
    label_weight: NonNegative = 1.0
    """Weight of the cross-entropy in epochs with a teacher; 0: train on soft labels only."""
    label_trust: bool = False
    """Move weight from the cross-entropy to the divergence where the teacher is less sure of the label on the view than
    on the unaugmented image."""
    weight_schedule: WeightSchedule = "constant"
    """Schedule of weight over the run: constant, rising (linear from 0), falling (linear to 0)."""
    weight_by_magnitude: bool = False
    """Multiply weight by each view's planned magnitude, the sum over its ops: 0 for an unchanged view, 1 for each op at
    full strength, so it may exceed 1."""
    drop_worst: FractionBelow1 = 0.0
    """Fraction of each batch left out of the loss: the views with the lowest teacher probability of the label."""
    min_confidence: FractionBelow1 = 0.0
    """Train on the label alone where the teacher's highest probability is below this: the weight of the divergence goes
    to the cross-entropy (FerKD, arXiv 2312.17473, which has label_weight 0 and softens these labels)."""
    method: Method | None = None
    """Shorthand: sets the other settings above to those of a published method, except the ones that are also given:
    paper, robust (dist with another weight), kd (all classes), kd-standardized (with standardized logits), dkd, dist,
    ferkd, hard. None: leaves them."""


@dataclass(frozen=True)
class Adversary:
    """AdvProp (arXiv 1911.09665): also train on adversarial images, with separate batch norms."""

    steps: Annotated[int, Ge(0), Le(1000)] = 0
    """Steps of projected gradient descent (PGD); 0: no AdvProp."""
    epsilon: PixelDistance = 4.0
    """Largest change of a pixel, in units of 0..255."""
    step_size: PixelDistance = 1.0
    """Change of a pixel per PGD step, in units of 0..255."""


@dataclass(frozen=True)
class Optimization:
    """Epochs, batch size, optimizer, learning-rate schedule, gradient clipping, weight averaging, precision."""

    epochs: Count = 200
    """Epochs with the policy."""
    clean_epochs: Annotated[int, Ge(0)] = 0
    """Additional epochs at the end with crop and flip only, no policy and no cutout (paper Section 3.4)."""
    clean_learning_rate: Positive | None = None
    """Learning rate at the start of the clean epochs, which falls to zero; None: learning_rate / 10."""
    global_batch: Count = 128
    """Images per optimization step, over all processes."""
    optimizer: Optimizer = "sgd"
    """sgd (Nesterov), rmsprop-tf (TensorFlow's RMSProp, alpha 0.9, epsilon 0.001, as EfficientNet), adamw."""
    learning_rate: Positive = 0.1
    """Learning rate after warm-up."""
    schedule: Schedule = "cosine"
    """cosine (to zero), staircase (StepLR: x decay_rate every decay_epochs), milestones (MultiStepLR: x decay_rate at
    each)."""
    decay_rate: OpenFraction = 0.97
    """For staircase and milestones: factor by which the learning rate decays."""
    decay_epochs: Positive = 2.4
    """For staircase: epochs between decays, counted from the start of training."""
    milestones: tuple[Positive, ...] = ()
    """For milestones: epochs at which the learning rate decays, in increasing order."""
    warmup_epochs: NonNegative = 0.0
    """Epochs of linear warm-up from zero."""
    momentum: OpenFraction = 0.9
    """Momentum of sgd and rmsprop-tf; first beta of adamw."""
    weight_decay: NonNegative = 5e-4
    """Weight decay: L2 for sgd and rmsprop-tf, decoupled for adamw."""
    decay_on: DecayOn = "all"
    """Parameters with weight decay: all, weights (no biases, no norms, none that the network excludes)."""
    layer_decay: FractionAbove0 | None = None
    """Learning rate of each layer as a fraction of that of the layer above it, for fine-tuning transformers (0.65 to
    0.8 in BEiT, arXiv 2106.08254); layers as timm groups them. With decay_on weights. None: the same for all."""
    clip_norm: Positive | None = 5.0
    """Maximum global gradient norm; None: no clipping."""
    ema_decay: OpenFraction | None = None
    """Decay per step of the exponential moving average (EMA) of the weights, which is evaluated and saved in their
    place; at most (1+step)/(10+step). None: no EMA."""
    sync_batch_norm: bool = False
    """Synchronize batch-norm statistics over all processes (GPUs only)."""
    precision: Precision = "auto"
    """Autocast type; auto: bfloat16 if the device supports it natively (GPU, AVX512-BF16 or AMX CPU), else float32."""

    @property
    def total_epochs(self) -> int:
        """epochs + clean_epochs."""
        return self.epochs + self.clean_epochs


@dataclass(frozen=True)
class Run:
    """Run directory, seed, device, checkpoints. Of these only seed changes the trained weights, apart from rounding and
    from batch-norm statistics, which each process computes over its part of the batch, one micro-batch at a time."""

    dir: Directory | None = None
    """Run directory; None: runs/RECIPE-FINGERPRINT."""
    seed: Seed = 0
    """Seed of initial weights and network noise (dropout, ...), and of the views if views.seed is None."""
    resume: bool = False
    """Resume the run in run.dir if it exists."""
    device: str = "auto"
    """auto (a GPU if available), cpu, cuda, cuda:1, ..."""
    device_batch: Count | None = None
    """Largest micro-batch: images per forward pass of a process. If its part of global_batch is larger, gradients are
    accumulated. None: no limit."""
    threads: Annotated[int, Ge(1), Le(MAX_PROCESSES)] | None = None
    """CPU threads of torch; None: as many as there are cores, divided among the processes
    that train together. A resumed run keeps its number, because another one changes the last bits."""
    evaluate_every: Count = 1
    """Epochs between evaluations; the last epoch is always evaluated."""
    evaluate_train: bool = False
    """At each evaluation, also measure the error on the unaugmented training images, which shows over-fitting and
    under-fitting (train_error in metrics.jsonl)."""
    checkpoint_minutes: NonNegative = 5.0
    """Minutes between checkpoints, in addition to one at each evaluation and one at interruption."""
    checkpoint_steps: Count | None = None
    """Optimization steps between checkpoints, in addition to checkpoint_minutes; None: no step limit."""
    evaluate_size: Side | None = None
    """Side in pixels that validation images are resized to for the student; None: as in training."""
    compile: bool = False
    """Compile the networks with torch.compile."""
    cuda_graphs: bool = False
    """Compile the networks and replay their kernels as CUDA graphs (torch.compile mode "reduce-overhead"). Faster for
    small networks, whose kernels run for a shorter time than their launch takes."""
    grad_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, about a third slower."""
    shard: bool = False
    """Shard weights, gradients and optimizer state over the processes (FSDP2), for networks too large for one GPU."""
    trackers: tuple[TrackerName, ...] = ()
    """Trackers to report to, in addition to metrics.jsonl and TensorBoard (pip install 'kdaug[trackers]')."""


@dataclass(frozen=True)
class Recipe:
    """All settings of a training run. Build one in Python, read one from YAML, or start from a named recipe."""

    data: Data = field(default_factory=Data)
    views: Views = field(default_factory=Views)
    student: Network = field(default_factory=Network)
    teacher: Teacher = field(default_factory=Teacher)
    supervision: Supervision = field(default_factory=Supervision)
    adversary: Adversary = field(default_factory=Adversary)
    optimization: Optimization = field(default_factory=Optimization)
    run: Run = field(default_factory=Run)
