//! Input of the networks: size and normalisation of a face.

/// Height and width of the input in pixels.
pub const INPUT_SIZE: usize = 128;
/// Values of one sample: `[3, 128, 128]`, planes R, G, B, normalised.
pub const INPUT_LEN: usize = 3 * INPUT_SIZE * INPUT_SIZE;
/// Mean of R, G, B over ImageNet, of values in [0, 1] (torchvision's reference training).
pub const IMAGENET_MEAN: [f32; 3] = [0.485, 0.456, 0.406];
/// Standard deviation of R, G, B over ImageNet, of values in [0, 1] (torchvision's reference training).
pub const IMAGENET_STD: [f32; 3] = [0.229, 0.224, 0.225];
