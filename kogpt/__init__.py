"""kogpt: a Korean GPT from scratch, from token corpus to a model that talks."""
