#include "minwm/core/device.h"
