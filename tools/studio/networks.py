"""The networks that are there to be used, each loaded once, and how fast they were seen to compute."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from engine.load import load_network
from engine.network import Network
from engine.optimizers import OPTIMIZERS
from engine.selection import layer_names
from engine.stylize import Job, Settings, prepare
from tools.cli.estimate import seconds_of_evaluation, work
from tools.cli.options import Options, network_part
from tools.cli.rendering import Size, at_level, picture_levels, picture_size
from tools.models.cache import DRAFT, DRAFT_FILE, cache_entry, default_model, model_names, resolve_model
from tools.models.folder import default_cache
from tools.models.loading import load

MOST_KEPT = 3

_TRIAL_SIDE = 128


class Networks:
    """Loads networks by their options.

    Parameters
    ----------
    named : a model that the studio was started with, a name or a file; None for the usual one.
    cache, threads : as on the command line.

    Raises ValueError for a model that is not there.
    """

    def __init__(self, named: str | None, cache: Path | None, threads: int | None) -> None:
        self.default = named or default_model(cache)
        self.cache = cache
        resolve_model(self.default, cache)
        self._threads = threads
        self._lock = threading.Lock()
        self._loaded: dict[Options, Network] = {}
        self._rates: dict[Options, float] = {}

    @property
    def names(self) -> list[str]:
        """What can be given as a model: the one that is used otherwise, those that have been fetched, the draft."""
        folder = self.cache or default_cache()
        fetched = [name for name in model_names() if cache_entry(name, folder).is_file()]
        return list(dict.fromkeys([self.default, *fetched, DRAFT]))

    def get(self, options: Options) -> Network:
        """Return the options' network; raises ValueError where it cannot be loaded."""
        key = network_part(options)
        with self._lock:
            network = self._loaded.pop(key, None)
            if network is None:
                network = load(key, resolve_model(str(key.model), self.cache), self._threads)
            self._loaded[key] = network
            for oldest in list(self._loaded)[:-MOST_KEPT]:
                del self._loaded[oldest]
            return network

    def draft(self, options: Options) -> Network:
        """Return the draft network, with the options' pooling."""
        return load_network(DRAFT_FILE, pooling=options.pooling, device=options.device, threads=self._threads)

    def measured(self, options: Options, job: Job, seconds: float) -> None:
        """Remember how long an evaluation of a job took."""
        size, layers = job.initial.shape[:2], job.objective.layers
        rate = seconds / _work_of(job.objective.network, size, layers)
        with self._lock:
            self._rates[network_part(options)] = rate

    def try_out(self, options: Options) -> None:
        """Time the options' network on a small picture, where that has not been done."""
        if network_part(options) not in self._rates:
            noise = np.random.default_rng(0).uniform(0, 255, (_TRIAL_SIDE, _TRIAL_SIDE, 3))
            job = prepare(self.get(options), noise, noise[::-1], Settings(init="noise"))
            self.measured(options, job, seconds_of_evaluation(job)[1])

    def seconds(self, options: Options, content: Size) -> float | None:
        """Return how long a picture takes, in all its sizes, estimated; None where the network has not been timed.

        Parameters
        ----------
        content : (height, width) of the photograph.
        """
        rate = self._rates.get(network_part(options))
        if rate is None:
            return None
        network = self.get(options)
        layers = dict.fromkeys([*layer_names(options.content_layers), *layer_names(options.style_layers)])
        _, each = OPTIMIZERS[options.optimizer].seconds_per_value
        total = 0.0
        for level in picture_levels(options, network):
            height, width = picture_size(content, at_level(options, level))
            evaluation = rate * _work_of(network, (height, width), layers)
            total += options.iterations * (evaluation + 3 * height * width * each)
        return total


def _work_of(network: Network, size: Size, layers: Iterable[str]) -> float:
    """Return the work of an evaluation in multiply-adds, for networks of all depths and widths."""
    height, width = size
    return network.multiply_adds(height, width, layers) * work(height, width) / (height * width)
