"""The loss lab: what other γ and α would make of the logits that a detector has."""
