"""Counts and shares of an evaluation: pure functions of the replies."""

from dataclasses import asdict, dataclass

from evaluation.prompts import Prompt

END_OF_REASONING = "</think>"


@dataclass(frozen=True)
class Reply:
    """What the server sent for one prompt; `error` is set where the call failed."""

    text: str = ""
    output_tokens: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    heads_total: int = 0
    heads_skipped: int = 0
    error: str | None = None


@dataclass
class Family:
    """Counts over the prompts of one family."""

    n: int = 0
    exact: int = 0
    compared: int = 0  # prompts that the reference knows
    equal: int = 0
    failed: int = 0
    heads_total: int = 0
    heads_skipped: int = 0


@dataclass(frozen=True)
class Report:
    """The whole evaluation. Shares are None where nothing was counted."""

    families: dict[str, Family]
    mean_exact: float | None  # mean of the families' shares
    reference_equal: float | None  # of all prompts compared
    skipped_heads: float | None
    failed: int
    output_tokens: int
    prompt_tokens: int
    cached_tokens: int
    seconds: float
    output_tokens_per_second: float
    differences: list[dict[str, str]]
    errors: list[str]

    def to_json(self) -> dict:
        """The report as plain values."""
        return asdict(self)


def final_answer(text: str) -> str:
    """The text after the reasoning, without white space around it."""
    return text.rpartition(END_OF_REASONING)[2].strip()


def share(part: int, whole: int) -> float | None:
    """part / whole; None of nothing."""
    return part / whole if whole else None


def summarise(
    prompts: list[Prompt], replies: list[Reply], reference: dict[str, str], seconds: float
) -> Report:
    """Counts replies (in the order of `prompts`) against answers and reference texts."""
    families: dict[str, Family] = {}
    differences, errors = [], []
    for prompt, reply in zip(prompts, replies, strict=True):
        family = families.setdefault(prompt.family, Family())
        family.n += 1
        family.heads_total += reply.heads_total
        family.heads_skipped += reply.heads_skipped
        wanted = reference.get(prompt.id)
        family.compared += wanted is not None
        if reply.error is not None:
            family.failed += 1
            errors.append(f"{prompt.id}: {reply.error}")
            continue
        family.exact += final_answer(reply.text) == prompt.answer
        if wanted is not None and reply.text == wanted:
            family.equal += 1
        elif wanted is not None:
            differences.append({"id": prompt.id, "text": reply.text, "reference": wanted})
    counts = families.values()
    exact_shares = [f.exact / f.n for f in counts]
    output_tokens = sum(r.output_tokens for r in replies)
    return Report(
        families=families,
        mean_exact=sum(exact_shares) / len(exact_shares) if exact_shares else None,
        reference_equal=share(sum(f.equal for f in counts), sum(f.compared for f in counts)),
        skipped_heads=share(
            sum(f.heads_skipped for f in counts), sum(f.heads_total for f in counts)
        ),
        failed=len(errors),
        output_tokens=output_tokens,
        prompt_tokens=sum(r.prompt_tokens for r in replies),
        cached_tokens=sum(r.cached_tokens for r in replies),
        seconds=seconds,
        output_tokens_per_second=output_tokens / seconds if seconds > 0 else 0.0,
        differences=differences,
        errors=errors,
    )


def shortfalls(
    report: Report, min_exact: float | None, min_reference_equal: float | None
) -> list[str]:
    """Why the evaluation fails: calls that failed, and shares under the thresholds."""
    found = [f"{report.failed} calls failed"] if report.failed else []
    checks = [
        ("exact answers, mean of the families", report.mean_exact, min_exact),
        ("texts equal to the reference", report.reference_equal, min_reference_equal),
    ]
    for what, value, least in checks:
        if least is None:
            continue
        if value is None:
            found.append(f"{what}: nothing was counted, wanted at least {least}")
        elif value < least:
            found.append(f"{what}: {value:.4f}, wanted at least {least}")
    return found


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.2f} %"


def table(report: Report) -> str:
    """The report for people."""
    heading = f"{'family':<14}{'n':>6}{'exact':>12}{'= reference':>14}{'heads skipped':>15}"
    lines = [heading]
    for name, f in report.families.items():
        equal = f"{f.equal}/{f.compared}" if f.compared else "-"
        skipped = _percent(share(f.heads_skipped, f.heads_total))
        lines.append(f"{name:<14}{f.n:>6}{f'{f.exact}/{f.n}':>12}{equal:>14}{skipped:>15}")
    n = sum(f.n for f in report.families.values())
    lines.append(
        f"{'mean':<14}{n:>6}{_percent(report.mean_exact):>12}"
        f"{_percent(report.reference_equal):>14}{_percent(report.skipped_heads):>15}"
    )
    lines.append(
        f"{report.output_tokens} tokens in {report.seconds:.1f} s: "
        f"{report.output_tokens_per_second:.0f} tokens/s; prompts {report.prompt_tokens} tokens, "
        f"{report.cached_tokens} of them from the cache"
    )
    return "\n".join(lines + [f"failed: {e}" for e in report.errors[:5]])
