"""The only owner of TrainState. `from training import fit` trains a config, from a notebook or any program."""


def __getattr__(name: str):
    """`fit`, on first use: it brings Orbax and every back-end of the log, which a plan, say, never needs."""
    if name == "fit":
        from training.fitting import fit

        return fit
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
