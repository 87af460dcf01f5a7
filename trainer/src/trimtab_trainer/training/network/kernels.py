"""Which modules of a model compute by kernels (`triton_kernels`) instead of in the plain way; `elementwise` chooses."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import nn


@dataclass
class Kernels:
    """The modules of one model that compute by kernels.

    Attributes:
        modules: by the name of a part, those whose forward is a kernel's.
        trouble: by the name of a part, why modules of it that could compute by a kernel do not.
    """

    modules: dict[str, list[nn.Module]] = field(default_factory=dict)
    trouble: dict[str, str] = field(default_factory=dict)

    @property
    def parts(self) -> tuple[str, ...]:
        """Names of the parts that compute by kernels, sorted."""
        return tuple(sorted(self.modules))

    def counts(self) -> dict[str, int]:
        """Return how many modules of each part compute by kernels."""
        return {part: len(self.modules[part]) for part in self.parts}

    def keep(self, parts: tuple[str, ...]) -> None:
        """Compute other parts than these in the plain way from now on."""
        for part in set(self.modules) - set(parts):
            for module in self.modules.pop(part):
                del module.forward
