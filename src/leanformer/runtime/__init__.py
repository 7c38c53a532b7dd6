"""What an exported model answers, where it is used: with numpy, pillow, tokenizers and the engine alone."""

from leanformer.runtime.classifier import Classifier, Prediction
from leanformer.runtime.loading import load
from leanformer.runtime.text_classifier import TextClassifier
from leanformer.runtime.translator import Translator

__all__ = ["Classifier", "Prediction", "TextClassifier", "Translator", "load"]
