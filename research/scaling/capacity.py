"""What fits: cards and their memory, the largest batch, methods side by side, and what to change when it does not."""

from collections.abc import Callable, Mapping
from typing import Any

from research.core.names import meant
from research.scaling.memory import Account, Setting, training

# Marketed gigabytes (10⁹ bytes). What the driver keeps is about what the binary gigabytes of the chips have more.
CARDS: Mapping[str, float] = {
    "t4": 16,
    "v100-16": 16,
    "v100-32": 32,
    "rtx3090": 24,
    "rtx4090": 24,
    "rtx5090": 32,
    "l4": 24,
    "a10": 24,
    "l40s": 48,
    "a100-40": 40,
    "a100-80": 80,
    "h100": 80,
    "h200": 141,
    "b200": 180,
    "mi300x": 192,
    "tpu-v4": 32,
    "tpu-v5e": 16,
    "tpu-v5p": 95,
    "tpu-v6e": 32,
}

# Dense products a second in bfloat16 (float16 where a card has none), 10¹² FLOPs, from the makers' data sheets.
TERAFLOPS: Mapping[str, float] = {
    "t4": 65,
    "v100-16": 125,
    "v100-32": 125,
    "rtx3090": 71,
    "rtx4090": 165,
    "rtx5090": 210,
    "l4": 121,
    "a10": 125,
    "l40s": 362,
    "a100-40": 312,
    "a100-80": 312,
    "h100": 989,
    "h200": 989,
    "b200": 2250,
    "mi300x": 1307,
    "tpu-v4": 275,
    "tpu-v5e": 197,
    "tpu-v5p": 459,
    "tpu-v6e": 918,
}

# JAX takes this share of a GPU's memory unless XLA_PYTHON_CLIENT_MEM_FRACTION says otherwise, and all of a TPU's.
GPU_SHARE = 0.75


def card_bytes(name: str, share: float | None = None) -> int:
    """Bytes of a card that a program may use.

    share: of all its bytes; None: what JAX takes by default.

    Raises:
      ValueError: an unknown card, with the nearest one, or a share that is none.
    """
    _require_card(name)
    if share is None:
        share = 1.0 if name.startswith("tpu") else GPU_SHARE
    if not 0 < share <= 1:
        raise ValueError(f"the share of a card's memory is above 0 and at most 1; given {share}")
    return int(CARDS[name] * 1e9 * share)


def card_flops(name: str, utilization: float) -> float:
    """FLOPs a second of a card at that share of its dense peak.

    Raises:
      ValueError: an unknown card, with the nearest one, or a share that is none.
    """
    _require_card(name)
    if not 0 < utilization <= 1:
        raise ValueError(f"the share of a card's peak is above 0 and at most 1; given {utilization}")
    return TERAFLOPS[name] * 1e12 * utilization


def _require_card(name: str) -> None:
    if name not in CARDS:
        raise ValueError(f"unknown card {name!r}{meant(name, CARDS)}; have {list(CARDS)}")


def largest_rows(setting: Setting, limit: int, account: Callable[[Setting], Account] = training) -> int:
    """The largest batch whose account is within `limit` bytes a device, to one percent; 0 where no row fits.

    The fullest moment is the largest of several sums that each grow linearly with the rows, so chords find it.
    """
    unit = setting.accumulate * setting.cut("data") * setting.cut("fsdp")

    def need(n: int) -> int:
        return account(setting.change(rows=n * unit)).total

    low, high = 1, 2
    at_low, at_high = need(low), need(high)
    if at_low > limit:
        return 0
    while at_high <= limit:
        further = high + (limit - at_high) * (high - low) // (at_high - at_low)
        if further == high:
            return high * unit
        low, at_low, high = high, at_high, further
        at_high = need(high)
    while high - low > max(1, low // 100):
        guess = low + (limit - at_low) * (high - low) // (at_high - at_low)
        guess = guess if low < guess < high else (low + high) // 2
        if (told := need(guess)) <= limit:
            low, at_low = guess, told
        else:
            high, at_high = guess, told
    return low * unit


def what_if(setting: Setting, rank: int = 8, account: Callable[[Setting], Account] = training) -> dict[str, Account]:
    """The account of the same run by method; a method that this model has no place for (BitFit without biases) is
    left out."""
    lora = {"method": "lora", "rank": rank}
    methods: dict[str, Any] = {
        "full": (),
        "bitfit": {"method": "bitfit"},
        f"lora, rank {rank}": lora,
        "int8 + lora": [{"method": "int8"}, lora],
        "nf4 + lora": [{"method": "nf4"}, lora],
        "ia3": {"method": "ia3"},
        "houlsby": {"method": "houlsby"},
        "prompt": {"method": "prompt"},
        "prefix": {"method": "prefix"},
    }
    found = {}
    for name, recipe in methods.items():
        try:
            found[name] = account(setting.change(recipe=recipe))
        except ValueError:
            continue
    return found


def refuse_too_large(setting: Setting, told: Account, limit: int, account: Callable[..., Account] = training) -> None:
    """Refuses a run that does not fit.

    Raises:
      ValueError: says what it takes, what there is, and which one change would make it fit.
    """
    if told.total <= limit:
        return
    fitting = [
        f"{name} ({gigabytes(new.total)})"
        for name, change in _alternatives(setting)
        if (new := account(change)).total <= limit
    ]
    rows = largest_rows(setting, limit, account)
    fitting = ([f"data.batch_size={rows}"] if rows else []) + fitting
    would = "; it would fit with " + ", or ".join(fitting) if fitting else "; no smaller batch, remat or adapter fits"
    raise ValueError(
        f"this run takes about {gigabytes(told.total)} on a device ({gigabytes(told.state)} of weights and optimizer, "
        f"{gigabytes(told.rest)} in a step) and there are {gigabytes(limit)}{would}"
    )


def _alternatives(setting: Setting) -> list[tuple[str, Setting]]:
    """One change each, in config terms."""
    found = []
    if setting.remat != "full":
        found.append(("model.remat='full'", setting.change(remat="full")))
    most = setting.rows // (setting.cut("data") * setting.cut("fsdp"))
    if most > setting.accumulate:
        found.append((f"accumulate={most}", setting.change(accumulate=most)))
    if setting.copied:
        found.append(("loss.reference='batch'", setting.change(copied=False)))
    elif not setting.recipe:
        found.append(("peft={'method': 'lora'}", setting.change(recipe={"method": "lora"})))
    return found


def gigabytes(count: float) -> str:
    """Bytes as people say them."""
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return f"{count / size:,.2f} {unit}"
    return f"{count:.0f} B"
