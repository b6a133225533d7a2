// Boxes in an image: a complete file of repvgg_mm, ONNX Runtime and nothing else.
//
//   g++ -std=c++17 -O2 docs/detect.cpp -I<onnxruntime>/include -L<onnxruntime>/lib -lonnxruntime -o detect
//   ./detect detector.onnx street.ppm      # binary PPM, as Pillow, OpenCV and ImageMagick write it
//
// Prints a line for each object, best first: class, score, left, top, right, bottom.

#include <onnxruntime_cxx_api.h>

#include <array>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <fstream>
#include <stdexcept>
#include <string>
#include <vector>

struct Image {
  std::array<int64_t, 3> shape;  // height, width, 3
  std::vector<uint8_t> pixels;   // RGB
};

Image read_ppm(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::string kind;
  int64_t width = 0, height = 0, largest = 0;
  file >> kind >> width >> height >> largest;
  if (!file || kind != "P6" || largest != 255 || width < 1 || height < 1)
    throw std::runtime_error(path + " is no binary PPM image of 8 bits");
  file.get();  // one white space before the pixels
  Image image{{height, width, 3}, std::vector<uint8_t>(static_cast<size_t>(3 * height * width))};
  if (!file.read(reinterpret_cast<char*>(image.pixels.data()), static_cast<std::streamsize>(image.pixels.size())))
    throw std::runtime_error(path + " is cut short");
  return image;
}

int main(int count, char** arguments) try {
  if (count != 3) throw std::runtime_error("usage: detect FILE.onnx IMAGE.ppm");
  Image image = read_ppm(arguments[2]);

  Ort::Env env(ORT_LOGGING_LEVEL_WARNING, "detect");
  Ort::Session session(env, arguments[1], Ort::SessionOptions());
  auto memory = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);
  auto input = Ort::Value::CreateTensor<uint8_t>(memory, image.pixels.data(), image.pixels.size(),
                                                 image.shape.data(), image.shape.size());
  const char* inputs[] = {"image"};
  const char* outputs[] = {"boxes", "scores", "labels"};
  auto answer = session.Run(Ort::RunOptions{nullptr}, inputs, &input, 1, outputs, 3);

  const float* box = answer[0].GetTensorData<float>();
  const float* scores = answer[1].GetTensorData<float>();
  const int64_t* labels = answer[2].GetTensorData<int64_t>();
  const size_t found = answer[1].GetTensorTypeAndShapeInfo().GetElementCount();
  for (size_t i = 0; i < found; ++i, box += 4)
    std::printf("%lld %.4f %.1f %.1f %.1f %.1f\n", static_cast<long long>(labels[i]), scores[i], box[0], box[1],
                box[2], box[3]);
  return 0;
} catch (const std::exception& error) {
  std::fprintf(stderr, "error: %s\n", error.what());
  return 2;
}
