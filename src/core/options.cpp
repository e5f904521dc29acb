#include "minwm/core/options.h"
