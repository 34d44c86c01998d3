// Bytes of a host as the streams of a design: words of X bytes in, words of Y bytes out, the lowest byte first.
// A byte 1 is followed by the BYTES of an image, and answered by its codes; a byte 2 is answered by the IDENTITY, the
// highest byte first; a byte 3 is followed by WEIGHTS bytes, where weights are loaded; other bytes in those places mean
// nothing.
// BYTES of an image wait in a queue, so a host that has no more than one image on its way loses nothing; weights are
// taken as they come once the design is empty. `lost` says that a byte came when it could not be taken.
module message_loader #(
    parameter X = 1, Y = 2, BYTES = 64, WEIGHTS = 0,
    parameter [63:0] IDENTITY = 0
) (
    input  clk, reset, received_valid, sent_ready, x_ready, y_valid, weights_ready,
    input  [7:0] received,
    input  [Y*8-1:0] y,
    output sent_valid, x_valid, y_ready, weights_valid, weights_last,
    output [7:0] sent, weights,
    output [X*8-1:0] x,
    output reg lost
);
    localparam D = BYTES < 2 ? 2 : BYTES, STYLE = D <= 64 ? 1 : 2, MOST = WEIGHTS > BYTES ? WEIGHTS : BYTES;
    localparam N = $clog2(MOST + 1);
    wire [7:0] queued, code;
    wire taken, queued_valid, queued_ready, code_valid, code_ready;
    reg  [N-1:0] left;          // bytes of an image or of weights that are still to come
    reg  in_image, in_weights;  // which of them
    reg  [3:0] untold;          // bytes of the identity that are still to go
    wire telling = untold != 0;
    wire idle = received_valid & ~in_image & ~in_weights;
    wire [63:0] told = IDENTITY >> {untold[2:0] - 3'd1, 3'b0};
    assign weights = received;
    assign weights_valid = received_valid & in_weights;
    assign weights_last = left == 1;
    always @(posedge clk)
        if (reset) begin
            in_image <= 1'b0;
            in_weights <= 1'b0;
            untold <= 0;
            lost <= 1'b0;
        end else begin
            if (idle) begin
                left <= received == 8'd3 ? WEIGHTS : BYTES;
                in_image <= received == 8'd1;
                in_weights <= WEIGHTS != 0 & received == 8'd3;
            end else if (received_valid) begin
                left <= left - 1'b1;
                if (left == 1) begin
                    in_image <= 1'b0;
                    in_weights <= 1'b0;
                end
            end
            if (idle & received == 8'd2) untold <= 8;
            else if (telling & sent_ready) untold <= untold - 1'b1;
            if ((received_valid & in_image & ~taken) | (weights_valid & ~weights_ready)) lost <= 1'b1;
        end
    fifo #(.D(D), .W(8), .STYLE(STYLE)) image (
        .clk(clk), .reset(reset), .x_valid(received_valid & in_image), .x(received), .x_ready(taken),
        .y_valid(queued_valid), .y_ready(queued_ready), .y(queued), .count()
    );
    gearbox #(.A(1), .B(X), .W(8)) words (
        .clk(clk), .reset(reset), .x_valid(queued_valid), .x(queued), .x_ready(queued_ready),
        .y_valid(x_valid), .y_ready(x_ready), .y(x)
    );
    gearbox #(.A(Y), .B(1), .W(8)) bytes (
        .clk(clk), .reset(reset), .x_valid(y_valid), .x(y), .x_ready(y_ready),
        .y_valid(code_valid), .y_ready(code_ready), .y(code)
    );
    assign code_ready = sent_ready & ~telling;
    assign sent_valid = telling | code_valid;
    assign sent = telling ? told[7:0] : code;
endmodule
