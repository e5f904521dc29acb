#include "minwm/core/files.h"
