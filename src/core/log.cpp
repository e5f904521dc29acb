#include "minwm/core/log.h"
