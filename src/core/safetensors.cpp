#include "minwm/core/safetensors.h"
