"""The steps of ``jax_jit``: a critic's step with its penalty, and a game's training step with Adam."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import torch
from jax.nn import relu, softplus

from benchmarks import losses
from benchmarks.peers.jax_networks import array, flat, function, parameters
from benchmarks.work import Results, Run, Work


def _dtype(work: Work) -> Any:
    return {torch.float16: jnp.float16, torch.bfloat16: jnp.bfloat16}.get(work.dtype, jnp.float32)


def _penalty(kind: str, critic: Any, values: Any, real: Any, fake: Any, t: Any) -> Any:
    x = {"wgan-gp": t * real + (1 - t) * fake, "r1": real, "r2": fake}[kind]
    g = jax.grad(lambda x: critic(values, x).sum())(x)
    norms = jnp.sqrt((g.reshape(len(g), -1) ** 2).sum(1))
    if kind == "wgan-gp":
        return losses.WEIGHT * ((norms - 1) ** 2).mean()
    return losses.WEIGHT / 2 * (norms**2).mean()


def _d_loss(kind: str, real: Any, fake: Any) -> Any:
    if kind == "non-saturating":
        return softplus(-real).mean() + softplus(fake).mean()
    return relu(1 - real).mean() + relu(1 + fake).mean() if kind == "hinge" else fake.mean() - real.mean()


def _points(work: Work, seed: int) -> list[Any]:
    """The random points of the others, which torch draws."""
    torch.manual_seed(seed)
    steps = getattr(work.case.what, "d_steps", 1)
    draws = [torch.rand(work.case.batch, dtype=torch.float32, device=work.device) for _ in range(steps)]
    return [jnp.asarray(draw.cpu().numpy()).reshape(-1, 1, 1, 1) for draw in draws]


def critic(work: Any) -> Run:
    """The suite gradient_penalty: loss and all gradients."""
    from benchmarks.suites.gradient_penalty import SEED

    apply, values = function(work.critic, _dtype(work)), parameters(work.critic)
    real, fake, (t,) = array(work.real), array(work.fake), _points(work, SEED)

    def loss(values: Any, real: Any, fake: Any, t: Any) -> Any:
        total = _d_loss("wasserstein", apply(values, real), apply(values, fake))
        return total + sum(_penalty(kind, apply, values, real, fake, t) for kind in work.kinds)

    step, found = jax.jit(jax.value_and_grad(loss)), []

    def run() -> None:
        found[:] = [jax.block_until_ready(step(values, real, fake, t))]

    def results() -> Results:
        value, gradients = found[0]
        return {"loss": torch.tensor(float(value)), "gradients": flat(work.critic, gradients)}

    return Run(run, results, images=work.case.batch, in_torch=False)


def _adam(kind: str, values: Any, gradients: Any, state: Any) -> tuple[Any, Any]:
    lr, (beta1, beta2) = losses.adam_settings(kind)
    count, m, v = state
    count = count + 1
    m = jax.tree.map(lambda m, g: beta1 * m + (1 - beta1) * g, m, gradients)
    v = jax.tree.map(lambda v, g: beta2 * v + (1 - beta2) * g * g, v, gradients)

    def moved(p: Any, m: Any, v: Any) -> Any:
        return p - lr * (m / (1 - beta1**count)) / (jnp.sqrt(v / (1 - beta2**count)) + losses.EPS)

    return jax.tree.map(moved, values, m, v), (count, m, v)


def _fresh(values: Any) -> Any:
    zeros = jax.tree.map(jnp.zeros_like, values)
    return jnp.zeros(()), zeros, jax.tree.map(jnp.zeros_like, values)


def training(work: Any) -> Run:
    """The suite step: what ``suites.step`` does, each player's step as one function."""
    from benchmarks.suites.step import SEED

    g, d, kind = function(work.generator, _dtype(work)), function(work.discriminator, _dtype(work)), work.game.loss
    real, latents = [array(x) for x in work.real], [array(x) for x in work.latents]
    points = _points(work, SEED)

    def d_loss(values: Any, real: Any, fake: Any, t: Any) -> Any:
        loss = _d_loss(kind, d(values, real), d(values, fake))
        return loss + _penalty(kind, d, values, real, fake, t) if kind == "wgan-gp" else loss

    def g_loss(values: Any, judge: Any, latent: Any) -> Any:
        scores = d(judge, g(values, latent).astype(jnp.float32))
        return softplus(-scores).mean() if kind == "non-saturating" else -scores.mean()

    def d_step(judge: Any, maker: Any, x: Any, latent: Any, t: Any) -> Any:
        values, moments = judge
        loss, gradients = jax.value_and_grad(d_loss)(values, x, g(maker, latent).astype(jnp.float32), t)
        return _adam(kind, values, gradients, moments), loss

    def g_step(maker: Any, judge: Any, latent: Any) -> Any:
        values, moments = maker
        loss, gradients = jax.value_and_grad(g_loss)(values, judge, latent)
        return _adam(kind, values, gradients, moments), loss, gradients

    d_step, g_step = jax.jit(d_step, donate_argnums=0), jax.jit(g_step, donate_argnums=0)

    def step(state: Any) -> Any:
        maker, judge = state
        for x, latent, t in zip(real, latents, points, strict=True):
            judge, first = d_step(judge, maker[0], x, latent, t)
        maker, second, gradients = g_step(maker, judge[0], latents[-1])
        return (maker, judge), ([first, second], gradients)

    return _run(work, step)


def _run(work: Any, step: Any) -> Run:
    models = work.generator, work.discriminator

    def fresh() -> Any:
        return tuple((values, _fresh(values)) for values in map(parameters, models))

    state, found = [fresh()], []

    def run() -> None:
        state[0], given = jax.block_until_ready(step(state[0]))
        found[:] = [given]

    def restore() -> None:
        state[0] = fresh()

    def results() -> Results:
        values, gradients = found[0]
        after = [flat(model, pair[0]) for model, pair in zip(models, state[0], strict=True)]
        updates = [x - flat(model, parameters(model)) for x, model in zip(after, models, strict=True)]
        return {
            "losses": torch.tensor([float(x) for x in values]),
            "generator gradient": flat(work.generator, gradients),
            "generator update": updates[0],
            "discriminator update": updates[1],
        }

    return Run(run, results, restore, images=len(work.real) * work.case.batch, in_torch=False)
