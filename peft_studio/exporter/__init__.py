"""From a stored adapter to what others load: merged weights, GGUF files, Modelfiles, plain LoRAs."""
