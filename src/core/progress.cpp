#include "minwm/core/progress.h"
