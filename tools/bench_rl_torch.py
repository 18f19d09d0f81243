"""The peers of `bench_rl.py`: PPO in a plain PyTorch loop around `transformers.generate`, and trl's DPOTrainer.

Both read weights from folders that `research.interop` wrote, compute in autocast where ours computes in bf16, and are
compiled where that helps. All prompts have one length, so nothing is padded.

B answers · P prompt length · N new tokens
"""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from datasets import Dataset
from transformers import GPT2LMHeadModel, PreTrainedTokenizerFast
from trl import DPOConfig, DPOTrainer

from research.recipes.ppo import PPO
from research.recipes.ppo_run import Schedule
from research.recipes.rollouts import Reward


class How(NamedTuple):
    """Where and how both peers compute; `low`: in bf16 autocast."""

    device: str
    low: bool
    compiled: bool
    rate: float

    def autocast(self) -> Any:
        """Of everything inside."""
        return torch.autocast(self.device, dtype=torch.bfloat16, enabled=self.low)


def pretrained(folder: Path, how: How) -> Any:
    """GPT-2 with float32 weights, for training."""
    return GPT2LMHeadModel.from_pretrained(folder, dtype=torch.float32).to(how.device).train()


class Loop:
    """PPO with a value head on the policy's trunk and a frozen copy as the reference; the numbers are those of ours."""

    def __init__(
        self,
        folders: Sequence[Path],
        head: Mapping[str, np.ndarray],
        ppo: PPO,
        schedule: Schedule,
        new_tokens: int,
        how: How,
    ) -> None:
        self.policy, self.reference = (pretrained(folder, how) for folder in folders)
        self.policy.generation_config.eos_token_id = None  # every answer has all its tokens
        self.reference.eval().requires_grad_(False)
        self.value = torch.nn.Linear(*head["kernel"].shape).to(how.device)
        self.value.load_state_dict({"weight": torch.tensor(head["kernel"].T), "bias": torch.tensor(head["bias"])})
        self.learning = [*self.policy.parameters(), *self.value.parameters()]
        self.optimizer = torch.optim.AdamW(self.learning, lr=how.rate, weight_decay=0.0, fused=True)
        self.ppo, self.schedule, self.new_tokens, self.how = ppo, schedule, new_tokens, how
        self.act = torch.compile(self._act, dynamic=False) if how.compiled else self._act
        self.refer = torch.compile(self._refer, dynamic=False) if how.compiled else self._refer

    def _act(self, tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """log π, V and entropies of the new tokens, [B, N]; logits are made of their positions alone."""
        hidden, answers = self._hidden(self.policy, tokens)
        logits = self.policy.lm_head(hidden).float() / self.ppo.temperature
        logprobs = torch.log_softmax(logits, -1)
        with torch.no_grad():  # a figure for the log: the bonus has weight 0
            entropies = -(logprobs.exp() * logprobs).sum(-1)
        chosen = logprobs.gather(-1, answers[..., None])[..., 0]
        return chosen, self.value(hidden)[..., 0].float(), entropies

    def _refer(self, tokens: torch.Tensor) -> torch.Tensor:
        hidden, answers = self._hidden(self.reference, tokens)
        logits = self.reference.lm_head(hidden).float() / self.ppo.temperature
        return logits.gather(-1, answers[..., None])[..., 0] - logits.logsumexp(-1)

    def _hidden(self, model: Any, tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        hidden = model.transformer(tokens[:, :-1], use_cache=False).last_hidden_state
        return hidden[:, -self.new_tokens :], tokens[:, -self.new_tokens :]

    def sample(self, prompts: Sequence[Sequence[int]]) -> torch.Tensor:
        """Prompts and answers, [B, P + N]."""
        ids = torch.tensor(prompts, device=self.how.device)
        self.policy.eval()
        with torch.no_grad(), self.how.autocast():
            made = self.policy.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=self.new_tokens,
                do_sample=True,
                top_k=0,
                temperature=self.ppo.temperature,
                pad_token_id=0,
            )
        self.policy.train()
        return made

    def read(self, tokens: torch.Tensor) -> list[torch.Tensor]:
        """log π, V and log π_ref of the new tokens, [B, N], a minibatch at a time."""
        with torch.no_grad(), self.how.autocast():
            parts = tokens.split(self.schedule.minibatch)
            found = [(*self.act(part)[:2], self.refer(part)) for part in parts]
        return [torch.cat(part) for part in zip(*found, strict=True)]

    def worth(
        self, scores: torch.Tensor, old: torch.Tensor, values: torch.Tensor, reference: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Advantages, whitened, and returns, [B, N]."""
        rewards = -self.schedule.kl_coefficient * (old - reference)
        rewards[:, -1] += scores
        advantages, ahead = torch.zeros_like(rewards), torch.zeros_like(scores)
        following = torch.zeros_like(scores)
        for t in reversed(range(rewards.shape[1])):
            delta = rewards[:, t] + self.ppo.discount * following - values[:, t]
            ahead = delta + self.ppo.discount * self.ppo.trace * ahead
            advantages[:, t], following = ahead, values[:, t]
        returns = advantages + values
        return (advantages - advantages.mean()) * torch.rsqrt(advantages.var(correction=0) + 1e-8), returns

    def update(
        self,
        tokens: torch.Tensor,
        old: torch.Tensor,
        old_values: torch.Tensor,
        advantages: torch.Tensor,
        returns: torch.Tensor,
    ) -> tuple[float, float]:
        """One update on a minibatch; its loss and the norm of its gradient."""
        clip, near = self.ppo.clip, self.ppo.value_clip
        with self.how.autocast():
            logprobs, values, _ = self.act(tokens)
        ratio = (logprobs - old).exp()
        policy = -torch.min(ratio * advantages, ratio.clamp(1 - clip, 1 + clip) * advantages).mean()
        moved = old_values + (values - old_values).clamp(-near, near)
        value = 0.5 * torch.max((values - returns) ** 2, (moved - returns) ** 2).mean()
        loss = policy + self.ppo.value_weight * value
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.learning, 1.0)
        self.optimizer.step()
        return float(loss.detach()), float(norm)

    def iterate(self, prompts: Sequence[Sequence[int]], decode: Callable[[list[int]], str], reward: Reward) -> float:
        """One iteration; the mean score of its answers."""
        tokens = self.sample(prompts)
        answers = [decode(answer) for answer in tokens[:, -self.new_tokens :].tolist()]
        scores = torch.tensor(reward([decode(list(ids)) for ids in prompts], answers), device=self.how.device)
        old, values, reference = self.read(tokens)
        advantages, returns = self.worth(scores, old, values, reference)
        given = (tokens, old, values, advantages, returns)
        for _ in range(self.schedule.epochs):
            for some in torch.randperm(len(tokens), device=self.how.device).split(self.schedule.minibatch):
                self.update(*(x[some] for x in given))
        return float(scores.mean())


class Direct:
    """trl's DPOTrainer beside a frozen copy; `step` is one update on its first batch."""

    def __init__(
        self,
        folders: Sequence[Path],
        tokenizer: PreTrainedTokenizerFast,
        pairs: Sequence[Mapping[str, str]],
        beta: float,
        how: How,
    ) -> None:
        self.folder = tempfile.TemporaryDirectory()
        settings = DPOConfig(
            output_dir=self.folder.name,
            per_device_train_batch_size=len(pairs),
            beta=beta,
            learning_rate=how.rate,
            weight_decay=0.0,
            bf16=how.low,
            use_cpu=how.device == "cpu",
            activation_checkpointing=False,
            torch_compile=how.compiled,
            disable_tqdm=True,
            report_to="none",
        )
        policy, reference = (pretrained(folder, how) for folder in folders)
        rows = Dataset.from_list([dict(pair) for pair in pairs])
        self.trainer = DPOTrainer(policy, reference.eval(), settings, train_dataset=rows, processing_class=tokenizer)
        self.trainer.create_optimizer()
        self.trainer.current_gradient_accumulation_steps = 1
        self.model = self.trainer.accelerator.prepare(self.trainer.model)
        self.batch = self.trainer.data_collator(list(self.trainer.train_dataset))

    def step(self) -> tuple[float, float]:
        """The loss and the norm of the gradient."""
        loss = self.trainer.training_step(self.model, dict(self.batch))
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.trainer.optimizer.step()
        self.trainer.optimizer.zero_grad(set_to_none=True)
        return float(loss), float(norm)
