"""An encoder small enough to be followed by hand: shared by the tests of losses over processes."""

from torch import Tensor, nn

from earmark.encoders import Encoder


class FlatEncoder(Encoder):
    """A linear map without batch norm, which would mix samples and tell processes apart."""

    output_dim = 6

    def __init__(self, in_dim: int) -> None:
        super().__init__()
        self.layer = nn.Linear(in_dim, self.output_dim)

    def forward_features(self, x: Tensor) -> Tensor:
        features: Tensor = self.layer(x.flatten(1)).tanh()
        return features[:, :, None]
