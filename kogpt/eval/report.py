"""The result of kogpt.eval.run.evaluate_run as a table for the terminal and as flat names for W&B."""

from typing import Any

from rich.table import Table


def numbers(result: dict[str, Any]) -> dict[str, float]:
    """The result of `evaluate_run` as flat names, for W&B."""
    flat = {
        f"bits_per_char/{name}": scored["bits_per_char"] for name, scored in result.get("bits_per_char", {}).items()
    }
    for shots, tasks in result.get("multiple_choice", {}).items():
        for task, scored in tasks.items():
            keys = ("accuracy", "standard_error", "bits_per_char")
            flat |= {f"{task}/{shots}-shot/{key}": scored[key] for key in keys}
    for shots, scored in result.get("above_chance", {}).items():
        flat[f"above_chance/{shots}-shot"] = scored["mean"]
    return flat


def table(result: dict[str, Any]) -> Table:
    """The result of `evaluate_run` for the terminal."""
    out = Table("measured on", "number", "value", "of", title=f"{result['run']} at step {result['step']}")
    for name, scored in result.get("bits_per_char", {}).items():
        out.add_row(name, "bits per character", f"{scored['bits_per_char']:.4f}", f"{scored['chars']:,} characters")
    for shots, tasks in result.get("multiple_choice", {}).items():
        for task, scored in tasks.items():
            value = f"{scored['accuracy']:.3f} ± {scored['standard_error']:.3f} (chance {scored['chance']:.2f})"
            out.add_row(task, f"accuracy, {shots} shots", value, f"{scored['items']:,} items")
            out.add_row("", "bits per character of the right choice", f"{scored['bits_per_char']:.3f}", "")
        mean = result["above_chance"][shots]
        value = f"{mean['mean']:.3f} ± {mean['standard_error']:.3f} (guessing 0, perfect 1)"
        out.add_row("mean", f"accuracy above chance, {shots} shots", value, f"{len(tasks):,} tasks")
    return out
