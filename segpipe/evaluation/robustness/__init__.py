"""How much a model loses on images with noise, blur, compression and other corruptions."""
