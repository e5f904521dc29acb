#include "minwm/core/error.h"
