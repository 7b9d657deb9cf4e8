"""One training step: losses, the pressure that closes heads, and the optimisers."""

import contextlib

import numpy as np
import torch

from abacus.tokenizer import TARGET_BIT
from abacus.training.feed_forward import Experts
from abacus.training.model import Abacus
from abacus.training.muon import Muon
from abacus.training.schedule import CLOSING_FROM, bias_step, closed_target

MTP_WEIGHT = 0.15
EXIT_WEIGHT = 0.1


def split_parameters(
    model: Abacus,
) -> tuple[list[torch.nn.Parameter], dict[float, list[torch.nn.Parameter]]]:
    """Parameters for Muon, and those for AdamW by their factor of the learning rate.

    AdamW has vectors, norms, embedding, head, routers, gates and the small compressors.
    """
    muon, adam = [], {}
    for name, p in model.named_parameters():
        last = name.split(".")[-1]
        small = last in ("router", "branch_gate", "gate_w2") or ".phi_" in name
        if p.ndim == 1 or "norm" in last or name in ("embed", "head") or small:
            factor = 0.5 if last in ("router", "gate_w2") else 1.0
            adam.setdefault(factor, []).append(p)
        else:
            muon.append(p)
    return muon, adam


def to_device(batch: np.ndarray, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """A packed batch -> tokens, and 1 where a token is a target."""
    x = torch.from_numpy(batch.view("int16"))
    if device.type == "cuda":
        x = x.pin_memory().to(device, non_blocking=True)
    return (x.int() & (TARGET_BIT - 1)).long(), (x < 0).float()


class Trainer:
    """Model, optimisers, and the controller of the gates' pressure."""

    def __init__(
        self, model: Abacus, device: torch.device, lr: float, adam_lr: float, closed: float
    ):
        self.model, self.device = model, device
        self.lr, self.adam_lr, self.closed = lr, adam_lr, closed
        muon, adam = split_parameters(model)
        self.muon = Muon(muon)
        groups = [{"params": ps, "factor": factor} for factor, ps in adam.items()]
        fused = {"fused": True} if device.type == "cuda" else {}
        self.adam = torch.optim.AdamW(
            groups, lr=adam_lr, betas=(0.9, 0.95), weight_decay=0.0, **fused
        )
        self.adam_parameters = [p for ps in adam.values() for p in ps]
        self.experts = [layer.mlp for layer in model.layers if isinstance(layer.mlp, Experts)]
        # Integral part of the controller that holds the share of closed heads.
        self.integral = torch.zeros((), device=device)

    def autocast(self):
        """bf16 products on CUDA."""
        if self.device.type == "cuda":
            return torch.autocast("cuda", dtype=torch.bfloat16)
        return contextlib.nullcontext()

    def _pressure(self, closed: torch.Tensor, progress: float, update: bool):
        """Weight of the mean gate in the loss: a PI controller of the share of closed heads."""
        error = closed_target(progress, self.closed) - closed
        if progress <= CLOSING_FROM:
            return 0.0 * error
        if update:
            self.integral = (self.integral + 0.002 * error).clamp(0, 1)
        return (self.integral + 0.2 * error).clamp(0, 1)

    def step(
        self,
        batch: np.ndarray,
        lr_factor: float,
        threshold: float,
        progress: float,
        update: bool = True,
    ) -> dict[str, torch.Tensor]:
        """Trains on one batch and returns figures for the log; `update` off changes nothing."""
        tokens, weight = to_device(batch, self.device)
        with self.autocast():
            gate_threshold = torch.full((), threshold, device=self.device)
            losses, stats, loads = self.model.losses(tokens, weight, gate_threshold)
        closed = stats[:, 1].mean().detach()
        pressure = self._pressure(closed, progress, update)
        loss = losses["main"] + MTP_WEIGHT * losses["mtp"] + pressure * stats[:, 0].mean()
        for layer in self.model.c.early_exit_layers:
            loss = loss + EXIT_WEIGHT * losses[f"exit{layer}"]
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.adam_parameters, 1.0)
        if update:
            self._update(lr_factor, bias_step(progress), loads)
        for p in self.model.parameters():
            p.grad = None
        figures = {name: value.detach() for name, value in losses.items()}
        balance = (loads.max(1).values / loads.mean(1)).max().detach()
        return figures | {"closed": closed, "pressure": pressure, "load": balance}

    def _update(self, lr_factor: float, bias: float, loads: torch.Tensor) -> None:
        self.muon.step(self.lr * lr_factor)
        for group in self.adam.param_groups:
            group["lr"] = self.adam_lr * group["factor"] * lr_factor
        self.adam.step()
        with torch.no_grad():
            for experts, load in zip(self.experts, loads):
                experts.bias.add_(bias * torch.sign(load.mean() - load))
