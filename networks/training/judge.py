"""Independent classifiers that judge generators; nothing shipped is trained with them. Trust: heuristic.

In: pictures. Out: predicted labels `(n, pixels) -> (n,)`.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from networks.training.data import Pictures
from networks.training.models import batches

JUDGE_SEED = 77  # differs from every recipe seed


@dataclass(frozen=True)
class Judge:
    """A classifier of pictures `(n, pixels)` with its name and its accuracy on the test part."""

    name: str
    predict: Callable[[np.ndarray], np.ndarray]
    test_accuracy: float

    def share(self, pictures: np.ndarray, label: int) -> float:
        """The share of `pictures (n, pixels)` taken for `label`."""
        return float(np.mean(self.predict(pictures) == label))


def support_vector_judge(data: Pictures, step: Callable[[], None]) -> Judge:
    """A support vector machine with Gaussian kernel, fitted to the train part."""
    from sklearn.svm import SVC

    machine = SVC(C=10.0, gamma="scale").fit(data.train_x, data.train_y)
    step()
    return Judge("SVC(rbf, C=10)", machine.predict, float(machine.score(data.test_x, data.test_y)))


def convolutional_judge(data: Pictures, step: Callable[[], None], epochs: int = 4) -> Judge:
    """A small convolutional network with pooling, fitted to the train part of a 28x28 data set."""
    torch.manual_seed(JUDGE_SEED)
    network = nn.Sequential(
        nn.Unflatten(1, (1, 28, 28)),
        nn.Conv2d(1, 16, 5, stride=2),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Dropout(0.2),
        nn.Linear(800, 64),
        nn.ReLU(),
        nn.Linear(64, 10),
    )
    pictures, labels = torch.from_numpy(data.train_x), torch.from_numpy(data.train_y)
    random = torch.Generator().manual_seed(JUDGE_SEED)
    optimiser = torch.optim.Adam(network.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.LinearLR(optimiser, 1.0, 0.1, total_iters=epochs)
    for _ in range(epochs):
        for rows in batches(len(pictures), 128, random):
            loss = functional.cross_entropy(network(pictures[rows]), labels[rows])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        schedule.step()
        step()
    network.eval()

    def predict(rows: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            parts = [network(part).argmax(1) for part in torch.from_numpy(rows).split(1000)]
        return torch.cat(parts).numpy()

    accuracy = float(np.mean(predict(data.test_x) == data.test_y))
    return Judge(f"CNN conv5x5/2-16, conv3x3-32, maxpool, 64 ({epochs} epochs)", predict, accuracy)
