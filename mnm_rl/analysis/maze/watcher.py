"""During training on the maze, TensorBoard gets pictures of an episode and numbers about the memory."""

from __future__ import annotations

from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import TensorBoardOutputFormat
from stable_baselines3.common.utils import set_random_seed
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from mnm_rl.agents.checkpoint import random_state, set_random_state
from mnm_rl.agents.on_policy import RecurrentOnPolicyAlgorithm
from mnm_rl.analysis import recall_errors
from mnm_rl.analysis.board import add_recall
from mnm_rl.analysis.maze.episode_figure import EpisodeFigure
from mnm_rl.analysis.maze.episodes import MazeEpisodes, watch_episodes
from mnm_rl.cores.mnm import MNMCore
from mnm_rl.envs import MazeVecEnv
from mnm_rl.training.rl.agent import updates_made

SEED = 1_000_000
"""Of the episode, in every run: what differs between two pictures is the agent."""
STEP = 0.5
"""Where in the episode the picture shows the agent: a fraction of its length."""


class MemoryWatcher(BaseCallback):
    """Watch an episode every few updates, always in the same maze with the same goal.

    Without TensorBoard nothing is done. Training goes on as if it were not watched: the episode is played in
    an environment of its own, and the random generators are put back.

    TensorBoard gets the picture :class:`EpisodeFigure` and the reward of the episode; as far as the core has
    them, histograms of its rates and of the sizes of its writes by layer, how far each layer is from its
    initial weights at the end, and for MNM cores how well it recalls what was written some steps ago.

    Args:
        env: a single maze with the rules of the training.
        every: updates from one episode to the next; the first one shows the untrained agent.
    """

    model: RecurrentOnPolicyAlgorithm  # pyright: ignore[reportIncompatibleVariableOverride]

    def __init__(self, env: MazeVecEnv, every: int):
        super().__init__()
        self.env = env
        self.every = every

    def _on_step(self) -> bool:
        return True

    def _on_rollout_start(self) -> None:
        if updates_made(self.model) % self.every == 0:
            self._watch()

    def _on_training_end(self) -> None:
        self._watch()

    def _watch(self) -> None:
        writers = [
            output.writer
            for output in self.logger.output_formats
            if isinstance(output, TensorBoardOutputFormat)
        ]
        if not writers:
            return
        before = random_state()
        try:
            set_random_seed(SEED)
            self.env.seed(SEED)
            episode = watch_episodes(self.model, self.env)
        finally:
            set_random_state(before)
        for writer in writers:
            _write(writer, episode, self.model.num_timesteps)
            core = self.model.policy.memory
            if isinstance(core, MNMCore):
                trace = episode.trace.to(core.initial_memory.device)
                add_recall(writer, recall_errors(core, trace), self.model.num_timesteps)


def _write(writer: SummaryWriter, episode: MazeEpisodes, timesteps: int) -> None:
    picture = EpisodeFigure(episode).show(int(STEP * len(episode.cells)))
    writer.add_image("watch/episode", picture, timesteps, dataformats="HWC")
    writer.add_scalar("watch/reward", episode.returns[0], timesteps)
    if "rates" in episode.trace:
        writer.add_histogram("memory/rates", episode.trace["rates"], timesteps)
    for layer, sizes in _layers(episode, "write_sizes"):
        writer.add_histogram(f"memory/write_size_layer_{layer}", sizes, timesteps)
        writer.add_scalar(f"memory_write_size/layer_{layer}", sizes.mean(), timesteps)
    for layer, distances in _layers(episode, "memory_distances"):
        writer.add_scalar(f"memory_distance_from_start/layer_{layer}", distances[-1], timesteps)


def _layers(episode: MazeEpisodes, name: str) -> list[tuple[int, Tensor]]:
    """Number and tensor ``[T]`` of each memory layer; none if the core has no such thing."""
    return list(enumerate(episode.trace[name][:, 0].unbind(1), 1)) if name in episode.trace else []
