"""What several recipes share: the argument after the colon, and sections with their usual values."""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

NO_DECAY = ("bias", "norm", "scale$", "embedding$", "probe", "class_token", "^log_logit_scale$", "^logit_bias$")


def parse_arg(arg: str, **defaults) -> ConfigDict:
    """The part of `--config=path.py:a=1,b` after the colon, as declared by `defaults`.

    A name alone switches a boolean on; a bare first value fills the first default that is not a boolean. Values take the type of
    their default; a boolean is `true` or `false`.

    Raises:
        ValueError: an unknown name, or a value of another type.
    """
    values = dict(defaults)
    for position, item in enumerate(filter(None, (arg or "").split(","))):
        name, equals, text = item.partition("=")
        if not equals and isinstance(defaults.get(name), bool):
            values[name] = True
            continue
        if not equals and position == 0:
            first = next((key for key, value in defaults.items() if not isinstance(value, bool)), None)
            name, text = (first, name) if first else (name, text)
        if name not in defaults:
            raise ValueError(f"the config's argument has no {name!r}; it takes: {', '.join(f'{k}={v}' for k, v in defaults.items())}.")
        values[name] = _typed(name, text, defaults[name])
    return ConfigDict(values)


def _typed(name: str, text: str, default):
    if isinstance(default, bool):
        if text.lower() not in ("true", "false"):
            raise ValueError(f"the config's argument {name}={text!r} must be true or false.")
        return text.lower() == "true"
    try:
        return type(default)(text)
    except ValueError as error:
        raise ValueError(f"the config's argument {name}={text!r} must be a {type(default).__name__} such as {default!r}.") from error


def base() -> ConfigDict:
    """Every section a run reads, with values that suit a small one; recipes fill in data, model, losses and evals."""
    config = ConfigDict()
    config.seed = 0
    config.data = dict(
        global_batch=256, shuffle=True, homogeneous=1, size_power=0.0, threads=2, workers=0, max_bad_fraction=0.001,
        distinct=False,  # True: no two rows of a global batch share an id
        sources={}, copies={}, tokenizer=None, transforms={},
    )  # fmt: skip
    config.model = dict(
        towers={}, views={}, companions=(), momentum={}, mixing={}, heads={}, adapters={}, temperature_init=0.07,
        logit_bias_init=placeholder(float),
    )  # fmt: skip
    config.losses = dict(matmul_dtype="float32")
    config.optimizer = dict(
        name="adamw",
        options=dict(b1=0.9, b2=0.999, eps=1e-8, weight_decay=0.1),
        learning_rate=1e-3,
        warmup_steps=50,
        schedule=dict(name="cosine", options=dict(end_factor=0.0)),
        no_decay=NO_DECAY,
        freeze=(),
        multipliers={},  # path pattern (without dots, which configs do not take in a key) = factor on the learning rate
        layer_decay={},  # tower = what each block's learning rate is of the next one's, 0.8 for example
        clip_norm=1.0,
        ema_decay=placeholder(float),
    )
    config.train = dict(
        steps=placeholder(int),
        epochs=placeholder(float),
        examples=placeholder(int),
        microbatches=placeholder(int),
        accumulate_steps=placeholder(int),
        profile_steps=placeholder(tuple),
        carries={},  # what losses keep from step to step, a queue for example
        stall_seconds=900.0,  # without a finished step: show all stacks, and leave if other processes wait; None never does
    )
    config.checkpoint = dict(every_steps=100, keep_last=3, keep_every_steps=placeholder(int), best=placeholder(str))
    config.mesh = dict(
        data=-1,
        fsdp=1,
        tensor=1,
        # (logical axis of a parameter, mesh axis); axes that are not listed stay whole.
        rules=(("embed", "fsdp"), ("channels_out", "fsdp"), ("vocab", "tensor"), ("heads", "tensor"), ("mlp", "tensor")),
        tower_rules={},  # tower = rules that hold for it instead; () keeps it whole on every device
    )
    config.evals = {}
    config.log = dict(every_steps=10, tensorboard=True, wandb=placeholder(str))  # wandb: a project at Weights & Biases
    return config
