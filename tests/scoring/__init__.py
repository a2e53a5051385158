"""How good the local counts are: recorded exchanges, counted with the provider's usage hidden, against that usage."""
