#include "minwm/core/random.h"
